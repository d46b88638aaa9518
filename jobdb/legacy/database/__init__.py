"""Imported jobs in the database: their rows as named tuples, and the records and logs rebuilt from them."""
