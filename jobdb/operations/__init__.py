"""Operations on a whole registry: back up, restore, copy, count, and take a snapshot for display."""
