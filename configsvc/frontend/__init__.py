"""The client port: sockets, TLS, who connected, and which handler gets the request.

``listener`` accepts; ``connection`` is one socket with its protocol; ``http2_session`` and
``http1_session`` turn bytes into requests; ``grpc_calls`` and ``exchanges`` are requests that are
being answered. ``server.Frontend`` is what the composition root uses.

Not here: framing rules (``http2``), TLS contexts (``net``), what an RPC does (``api``).
"""
