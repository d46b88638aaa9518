"""What is done to a whole registry: back up, restore, copy, count, show."""
