"""The consensus rules, as a machine without clock, disk, network or randomness of its own.

``node`` is the door: calls go in, a ``Ready`` comes out; ``plan`` says in which order it is carried
out. Inside, ``state`` is the record that all rules share, ``roles`` its role, term and vote;
``dispatch`` hands a message to ``election``, ``replication``, ``proposing``, ``reads`` or
``transfer``; ``sending`` writes the appends; ``membership`` holds configurations; ``log``,
``unstable`` and ``storage`` the log. Shaped like etcd/raft: its public scripts are replayed by
``tests/scenarios``.
"""
