"""Measured side by side with etcd: `make bench`. Asserts nothing; see README.md."""
