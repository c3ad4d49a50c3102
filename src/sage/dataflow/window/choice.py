"""Which machine runs a kind of windows: a fast path where there is one, else the general operator."""

from __future__ import annotations

from typing import Literal

from sage.dataflow.window.assigner import SessionWindows, SlidingTimeWindows
from sage.dataflow.window.trigger import EventTimeTrigger
from sage.dataflow.window.window_contents import PLAIN
from sage.dataflow.window.window_operator import WindowSpec


def chosen_path(spec: WindowSpec) -> Literal["panes", "sessions", "general"]:
    """Return what is to run these windows.

    A fast path takes windows on event time that are folded as records come, with the default
    trigger, no evictor, and plain results. Sliding windows and sessions need an aggregate that says
    how accumulators are merged; without it, the general operator folds each record into each of its
    sliding windows, and keeps the records of sessions until they fire.

    Args:
        spec: What kind of windows.

    Returns:
        `"panes"` for `PaneWindows`, `"sessions"` for `KeyedSessions`, else `"general"`.

    Examples:
        >>> from sage.dataflow.window.window_function import reducing
        >>> from sage.dataflow.window.windows import session_window
        >>> chosen_path(WindowSpec(session_window(minutes=1), reducing(max)))
        'sessions'
    """
    assigner, fold = spec.assigner, spec.fold
    default = type(spec.chosen_trigger()) is EventTimeTrigger
    if fold is None or spec.finish is not PLAIN or spec.chosen_evictor() or not default:
        return "general"
    if isinstance(assigner, SlidingTimeWindows) and assigner.on_event_time:
        tumbling = assigner.slide_ms % assigner.size_ms == 0
        return "panes" if tumbling or fold.merge is not None else "general"
    if isinstance(assigner, SessionWindows) and assigner.on_event_time:
        return "sessions" if fold.merge is not None else "general"
    return "general"
