"""The write-ahead log: what a member has promised, durable before anybody hears of it.

``format`` is the bytes, ``recovery`` what they prove, ``wal`` the open log, ``writer`` the one
thread that owns it in the product, ``inspect`` reading for people and for scrubbing.

Not here: which promise needs a write (``raft.plan``), the entries in memory (``raft.storage``),
SQL (``history``), key files (``seal``).
"""
