"""TLS contexts, and TLS as a function of bytes."""
