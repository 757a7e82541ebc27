"""Encryption at rest: pure sealing of frames and fields, and the key file."""
