"""Workers and clients are killed, as in tests/torture.py, on Redis."""

import torture

from .ground import App


def crash(options, report):
    torture.crash(options, report, App)
