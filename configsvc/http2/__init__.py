"""HTTP/2 (RFC 9113) and gRPC framing for servers, as pure functions of bytes and time.

``connection`` walks what was read and says what happened; ``outbox`` frames what is answered;
``headers`` and ``request`` judge header blocks; ``grpc`` is the layer of messages and statuses.

Not here: sockets, TLS, which handler answers (``frontend``), what a status means (``api``).
"""
