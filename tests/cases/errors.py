"""An exception of the application's own: Python's tasks raise it, ours name it."""


class Expected(Exception):
    """What a case is about."""
