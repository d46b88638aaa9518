"""What the crash and torture tests share: workers that die, what they were promised, and the comparison afterwards."""
