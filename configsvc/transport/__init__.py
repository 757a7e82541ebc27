"""Member to member: length-prefixed frames over mutual TLS."""
