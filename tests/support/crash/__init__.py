"""Workers that are killed, disks that fail, and the check of the database against the workers' logs afterwards."""
