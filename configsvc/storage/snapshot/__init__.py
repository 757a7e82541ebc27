"""Full installs: one member's whole history as a stream, and a fresh generation made from it.

``source`` reads, ``sink`` fills, ``stream`` is the format between them, ``generations`` knows the
files. The network in between is the runtime's.
"""
