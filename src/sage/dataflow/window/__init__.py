"""Windows on event and processing time: assigners, triggers, evictors, and the logic that runs them.

Everything here is pure: records, watermarks and due timers come in, results go out. `choice` says
which of three machines runs a kind of windows: `pane_windows` for tumbling and sliding ones,
`session_windows`, or the general `window_operator`. The semantics are those of Apache Flink.
"""

from sage.dataflow.window.assigner import (
    CountWindows,
    GlobalWindows,
    SessionWindows,
    SlidingTimeWindows,
    TumblingTimeWindows,
    WindowAssigner,
)
from sage.dataflow.window.evictor import CountEvictor, DeltaEvictor, Evictor, TimeEvictor
from sage.dataflow.window.trigger import (
    ContinuousEventTimeTrigger,
    ContinuousProcessingTimeTrigger,
    CountTrigger,
    DeltaTrigger,
    EventTimeTrigger,
    NeverTrigger,
    ProcessingTimeTrigger,
    PurgingTrigger,
    Trigger,
    TriggerContext,
    TriggerResult,
)
from sage.dataflow.window.window_function import (
    ProcessContext,
    ProcessWindowFunction,
    WindowFunction,
)
from sage.dataflow.window.window_result import GLOBAL_WINDOW, Window, WindowResult
from sage.dataflow.window.windows import (
    count_window,
    global_window,
    session_window,
    sliding_time_window,
    tumbling_time_window,
)

__all__ = [
    "GLOBAL_WINDOW",
    "ContinuousEventTimeTrigger",
    "ContinuousProcessingTimeTrigger",
    "CountEvictor",
    "CountTrigger",
    "CountWindows",
    "DeltaEvictor",
    "DeltaTrigger",
    "EventTimeTrigger",
    "Evictor",
    "GlobalWindows",
    "NeverTrigger",
    "ProcessContext",
    "ProcessWindowFunction",
    "ProcessingTimeTrigger",
    "PurgingTrigger",
    "SessionWindows",
    "SlidingTimeWindows",
    "TimeEvictor",
    "Trigger",
    "TriggerContext",
    "TriggerResult",
    "TumblingTimeWindows",
    "Window",
    "WindowAssigner",
    "WindowFunction",
    "WindowResult",
    "count_window",
    "global_window",
    "session_window",
    "sliding_time_window",
    "tumbling_time_window",
]
