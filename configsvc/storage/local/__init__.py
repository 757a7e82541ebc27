"""The member-local database: stream L, what one member saw and the log never carried.

One SQLite file in the data directory, written with full sync, never replaced by an install.
"""
