"""From a program and its settings to the processes that run it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sage.common.clock import SystemClock
from sage.common.config import EnvironmentConfig
from sage.common.errors import ConfigError, GraphError
from sage.dataflow.graph.stream_graph import StreamGraph, StreamNode
from sage.dataflow.operator.source import ReadSource
from sage.kernel.runtime.service.hosting.service_host import ServiceHost
from sage.kernel.runtime.task.operator_context import JobContext

if TYPE_CHECKING:
    from sage.kernel.jobmanager.worker_deployment import WorkerDeployment
    from sage.kernel.runtime.worker.order import SlotSettings


def plan_workers(
    graph: StreamGraph, settings: EnvironmentConfig, context: JobContext, services: ServiceHost
) -> WorkerDeployment | None:
    """Lay a program out over processes; None if all of it has one subtask and runs in this one.

    Raises:
        ConfigError: the settings ask for what only a job in one process can do.
        GraphError: a source cannot say its splits, or there are not enough key groups.
    """
    if all(node.parallelism == 1 for node in graph.nodes.values()):
        return None
    if not isinstance(context.clock, SystemClock):
        raise ConfigError("a job in several processes goes by the system's clock: leave clock= out")
    # What it takes to start processes is imported by those who do.
    from sage.dataflow.graph.execution_graph import build_execution_graph  # noqa: PLC0415
    from sage.kernel.jobmanager.worker_deployment import WorkerDeployment  # noqa: PLC0415

    splits = {
        node.id: _splits(node)
        for node in graph.nodes.values()
        if isinstance(node.operator, ReadSource)
    }
    layout = build_execution_graph(graph, splits, settings.max_parallelism)
    services.share()
    return WorkerDeployment(layout, partial(_slot_settings, settings, context, services))


def _splits(node: StreamNode) -> list[str]:
    source = node.operator.source if isinstance(node.operator, ReadSource) else None
    if source is None:
        raise GraphError(f"{node.name} has no source to read")
    try:
        return list(source.list_splits())
    except Exception as error:
        raise GraphError(f"{node.name} cannot say what there is to read: {error}") from error


def _slot_settings(
    settings: EnvironmentConfig, context: JobContext, services: ServiceHost
) -> SlotSettings:
    from sage.kernel.runtime.worker.order import SlotSettings  # as above  # noqa: PLC0415

    return SlotSettings(
        context.job_name,
        settings.batch_size,
        settings.buffer_size,
        settings.buffer_timeout,
        settings.heartbeat_timeout,
        context.state,
        services.token,
        tuple(services.addresses().values()),
        services.middleware,
        services.ray_services(),
    )
