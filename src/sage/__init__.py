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
)
from sage.core.api.base_environment import BaseEnvironment
from sage.core.api.collected import Collected
from sage.core.api.datastream import ConnectedStreams, DataStream, KeyedStream, SplitStream
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
from sage.dataflow.function.context import RuntimeContext, SourceContext
from sage.dataflow.function.keyed import (
    AggregateFunction,
    FieldKeyByFunction,
    KeyByFunction,
    ReduceFunction,
)
from sage.dataflow.function.sink import Sink, SinkFunction, SinkWriter
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
    MapFunction,
    ProcessContext,
    ProcessFunction,
)
from sage.dataflow.record import DeadLetter
from sage.kernel.jobmanager.job import JobMetrics, JobResult
from sage.kernel.jobmanager.job_state import JobStatus

__all__ = [
    "AggregateFunction",
    "BaseCoMapFunction",
    "BaseEnvironment",
    "BaseFunction",
    "BatchFunction",
    "Clock",
    "CoFlatMapFunction",
    "CoMapFunction",
    "CoProcessFunction",
    "Collected",
    "Collector",
    "ConfigError",
    "ConnectedStreams",
    "DataStream",
    "DeadLetter",
    "FieldKeyByFunction",
    "FilterFunction",
    "FlatMapFunction",
    "FunctionError",
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
    "KeyedStream",
    "LocalEnvironment",
    "MapFunction",
    "OperatorError",
    "ProcessContext",
    "ProcessFunction",
    "ReduceFunction",
    "RuntimeContext",
    "SageError",
    "ServiceCallError",
    "ServiceCancelledError",
    "ServiceCycleError",
    "ServiceError",
    "ServiceMethodError",
    "ServiceNotFoundError",
    "ServiceOverloadedError",
    "ServiceTimeoutError",
    "ServiceUnavailableError",
    "Sink",
    "SinkFunction",
    "SinkWriter",
    "Source",
    "SourceContext",
    "SourceError",
    "SourceFunction",
    "SourceReader",
    "SplitStream",
    "StopSignal",
    "SystemClock",
    "collect",
    "count",
    "count_distinct",
    "distinct",
    "first",
    "last",
    "max_of",
    "mean",
    "min_of",
    "multi",
    "quantiles",
    "stddev",
    "sum_of",
    "top_k",
    "variance",
]

__version__ = "0.1.0"
