"""SAGE: a Python dataflow engine.

    from sage import LocalEnvironment

    env = LocalEnvironment("app")
    env.from_batch(range(10)).map(lambda x: x * x).print()
    env.execute()

All that users need can be imported from here; `sage.core.api` is the same by its modules.
"""

from sage.common.clock import Clock, SystemClock
from sage.common.errors import (
    ConfigError,
    FunctionError,
    GraphError,
    JobCancelledError,
    JobError,
    JobStateError,
    JobTimeoutError,
    OperatorError,
    SageError,
    ServiceCallError,
    ServiceCancelledError,
    ServiceCycleError,
    ServiceError,
    ServiceMethodError,
    ServiceNotFoundError,
    ServiceOverloadedError,
    ServiceTimeoutError,
    ServiceUnavailableError,
    SourceError,
    StateError,
)
from sage.connector.file_sink import FileSink
from sage.connector.row_buffer import Spill
from sage.connector.sink_error import SinkError
from sage.connector.table_sink import TableSink
from sage.core.api.base_environment import BaseEnvironment
from sage.core.api.collected import Collected
from sage.core.api.datastream import (
    ConnectedStreams,
    DataStream,
    KeyedStream,
    SplitStream,
    WindowedStream,
)
from sage.core.api.job_handle import JobHandle
from sage.core.api.local_environment import LocalEnvironment
from sage.dataflow.function.aggregators import (
    collect,
    count,
    count_distinct,
    distinct,
    first,
    last,
    max_of,
    mean,
    min_of,
    multi,
    quantiles,
    stddev,
    sum_of,
    top_k,
    variance,
)
from sage.dataflow.function.base import BaseFunction
from sage.dataflow.function.broadcast import (
    BroadcastProcessFunction,
    KeyedBroadcastProcessFunction,
)
from sage.dataflow.function.context import RuntimeContext, SourceContext
from sage.dataflow.function.join import BaseJoinFunction
from sage.dataflow.function.keyed import (
    AggregateFunction,
    FieldKeyByFunction,
    KeyByFunction,
    ReduceFunction,
)
from sage.dataflow.function.sink import Sink, SinkFunction, SinkWriter, TwoPhaseWriter
from sage.dataflow.function.source import (
    BatchFunction,
    Source,
    SourceFunction,
    SourceReader,
    StopSignal,
)
from sage.dataflow.function.transform import (
    BaseCoMapFunction,
    CoFlatMapFunction,
    Collector,
    CoMapFunction,
    CoProcessFunction,
    FilterFunction,
    FlatMapFunction,
    KeyedProcessFunction,
    KeylessContext,
    MapFunction,
    ProcessContext,
    ProcessFunction,
)
from sage.dataflow.key_group import stable_hash
from sage.dataflow.record import DeadLetter
from sage.dataflow.state.declarations import (
    AggregatingState,
    ListState,
    MapState,
    ReducingState,
    StateTtl,
    ValueState,
)
from sage.dataflow.state.operator_state import BroadcastState, OperatorListState
from sage.dataflow.time import (
    WatermarkGenerator,
    WatermarkStrategy,
    bounded_out_of_orderness,
    monotonic_timestamps,
    punctuated,
)
from sage.dataflow.window import (
    ContinuousEventTimeTrigger,
    ContinuousProcessingTimeTrigger,
    CountEvictor,
    CountTrigger,
    CountWindows,
    DeltaEvictor,
    DeltaTrigger,
    EventTimeTrigger,
    Evictor,
    GlobalWindows,
    ProcessingTimeTrigger,
    ProcessWindowFunction,
    PurgingTrigger,
    SessionWindows,
    SlidingTimeWindows,
    TimeEvictor,
    Trigger,
    TriggerContext,
    TriggerResult,
    TumblingTimeWindows,
    Window,
    WindowAssigner,
    WindowFunction,
    WindowResult,
    count_window,
    global_window,
    session_window,
    sliding_time_window,
    tumbling_time_window,
)
from sage.kernel.checkpoint.errors import CheckpointError
from sage.kernel.jobmanager.job_metrics import JobMetrics, JobResult
from sage.kernel.jobmanager.job_state import JobStatus
from sage.kernel.runtime.service.batching import batch
from sage.kernel.runtime.service.middleware import ServiceMiddleware
from sage.kernel.runtime.service.policy.retry import RetryPolicy

__all__ = [
    "AggregateFunction",
    "AggregatingState",
    "BaseCoMapFunction",
    "BaseEnvironment",
    "BaseFunction",
    "BaseJoinFunction",
    "BatchFunction",
    "BroadcastProcessFunction",
    "BroadcastState",
    "CheckpointError",
    "Clock",
    "CoFlatMapFunction",
    "CoMapFunction",
    "CoProcessFunction",
    "Collected",
    "Collector",
    "ConfigError",
    "ConnectedStreams",
    "ContinuousEventTimeTrigger",
    "ContinuousProcessingTimeTrigger",
    "CountEvictor",
    "CountTrigger",
    "CountWindows",
    "DataStream",
    "DeadLetter",
    "DeltaEvictor",
    "DeltaTrigger",
    "EventTimeTrigger",
    "Evictor",
    "FieldKeyByFunction",
    "FileSink",
    "FilterFunction",
    "FlatMapFunction",
    "FunctionError",
    "GlobalWindows",
    "GraphError",
    "JobCancelledError",
    "JobError",
    "JobHandle",
    "JobMetrics",
    "JobResult",
    "JobStateError",
    "JobStatus",
    "JobTimeoutError",
    "KeyByFunction",
    "KeyedBroadcastProcessFunction",
    "KeyedProcessFunction",
    "KeyedStream",
    "KeylessContext",
    "ListState",
    "LocalEnvironment",
    "MapFunction",
    "MapState",
    "OperatorError",
    "OperatorListState",
    "ProcessContext",
    "ProcessFunction",
    "ProcessWindowFunction",
    "ProcessingTimeTrigger",
    "PurgingTrigger",
    "ReduceFunction",
    "ReducingState",
    "RetryPolicy",
    "RuntimeContext",
    "SageError",
    "ServiceCallError",
    "ServiceCancelledError",
    "ServiceCycleError",
    "ServiceError",
    "ServiceMethodError",
    "ServiceMiddleware",
    "ServiceNotFoundError",
    "ServiceOverloadedError",
    "ServiceTimeoutError",
    "ServiceUnavailableError",
    "SessionWindows",
    "Sink",
    "SinkError",
    "SinkFunction",
    "SinkWriter",
    "SlidingTimeWindows",
    "Source",
    "SourceContext",
    "SourceError",
    "SourceFunction",
    "SourceReader",
    "Spill",
    "SplitStream",
    "StateError",
    "StateTtl",
    "StopSignal",
    "SystemClock",
    "TableSink",
    "TimeEvictor",
    "Trigger",
    "TriggerContext",
    "TriggerResult",
    "TumblingTimeWindows",
    "TwoPhaseWriter",
    "ValueState",
    "WatermarkGenerator",
    "WatermarkStrategy",
    "Window",
    "WindowAssigner",
    "WindowFunction",
    "WindowResult",
    "WindowedStream",
    "batch",
    "bounded_out_of_orderness",
    "collect",
    "count",
    "count_distinct",
    "count_window",
    "distinct",
    "first",
    "global_window",
    "last",
    "max_of",
    "mean",
    "min_of",
    "monotonic_timestamps",
    "multi",
    "punctuated",
    "quantiles",
    "session_window",
    "sliding_time_window",
    "stable_hash",
    "stddev",
    "sum_of",
    "top_k",
    "tumbling_time_window",
    "variance",
]

__version__ = "0.1.0"
