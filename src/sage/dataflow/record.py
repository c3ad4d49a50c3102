"""What may travel beside plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

DEAD_LETTERS: Final = "dead-letters"
"""The side output that takes the records whose function failed under `on_error="dead_letter"`."""


LATE_RECORDS: Final = "late-records"
"""The side output that takes the records that came too late for all of their windows."""


@dataclass(frozen=True)
class DeadLetter:
    """A record that an operator could not process, and why.

    Attributes:
        value: The record as it came to the operator.
        operator: The name of the operator.
        error: The exception that its function raised.
        traceback: The formatted traceback, user code only.
    """

    value: Any
    operator: str
    error: Exception
    traceback: str
