"""The one exception inside the verifier: something differs from what was recorded."""


class Bad(Exception):
    """Its text says what differs; ``verify`` adds at which leaf."""
