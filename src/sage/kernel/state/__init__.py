"""Keyed state that does not fit into memory: tables in an embedded database on the local disk.

`disk_store` holds the tables of one subtask, `disk_table` is one of them, `encoding` says which
bytes stand for a key or a value, and `rocks_engine` is all that knows the database.
"""
