"""An imported job in the database: its rows as named tuples, and the record and logs that they make."""
