"""Member to member: length-prefixed frames over mutual TLS.

A map of the room, from the wire up: ``frames`` cuts bytes into frames, ``hello`` says who speaks,
``outbox`` bounds what waits, ``connection`` is one socket, ``dialling`` keeps one alive,
``admission`` judges who and what is acceptable, ``link`` is all of them for one member, and
``ports`` what it is given. Raft messages become bytes in ``codec.raft_wire``.
"""
