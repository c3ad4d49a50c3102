"""Logging: one `sage` tree of loggers, a console handler on request, and a bound on repeated lines."""

from __future__ import annotations

import logging
from typing import Final

from sage.common.clock import Clock
from sage.common.suggest import did_you_mean

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_CONSOLE: Final = "sage-console"


def get_logger(*path: str) -> logging.Logger:
    """Return the logger `sage.<path…>`."""
    return logging.getLogger(".".join(("sage", *path)))


def log_to_console(logger: logging.Logger, level: str) -> None:
    """Show the records of `logger` from `level` upwards on standard error, once each.

    Raises:
        ValueError: `level` is not one of `LEVELS`.
    """
    name = str(level).upper()
    if name not in LEVELS:
        near = did_you_mean(name, LEVELS)
        raise ValueError(f"unknown log level {level!r}.{near} Choose one of {', '.join(LEVELS)}.")
    handler = next((h for h in logger.handlers if h.get_name() == _CONSOLE), None)
    if handler is None:
        handler = logging.StreamHandler()
        handler.set_name(_CONSOLE)
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")
        )
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel(name)


class RateLimit:
    """Says yes to the first event, then to one per `interval` seconds, and counts the rest."""

    def __init__(self, clock: Clock, interval: float = 10.0) -> None:
        self._clock = clock
        self._interval = interval
        self._next = float("-inf")
        self._suppressed = 0

    def admit(self) -> int | None:
        """Return how many events were held back since the last one let through, or None to hold."""
        now = self._clock.monotonic()
        if now < self._next:
            self._suppressed += 1
            return None
        self._next = now + self._interval
        held, self._suppressed = self._suppressed, 0
        return held
