"""A configuration service with audit history."""

__version__ = "0.1.0"
