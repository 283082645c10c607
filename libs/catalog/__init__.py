"""The catalog: its tables and the read queries that more than one service needs."""
