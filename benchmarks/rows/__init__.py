"""The rows: each module is one comparison, and `ROW` in it."""
