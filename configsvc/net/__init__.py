"""TLS without sockets: ``contexts`` (who is trusted, replaced while running), ``shell`` (bytes)."""
