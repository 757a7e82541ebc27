"""`make up`: a secure cluster of several members on this machine, for development."""
