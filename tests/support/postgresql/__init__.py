"""PostgreSQL for tests: a server, a pooler, and a proxy that cuts commits."""
