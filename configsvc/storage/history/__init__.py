"""The full history in SQL: a checkpoint of the log, never the source of durability.

``store`` owns the one writing connection, ``writer`` the thread that feeds it, ``reader`` the
questions about the past, ``schema`` the tables. Values leave this package in the clear and lie in
it sealed (``values``).
"""
