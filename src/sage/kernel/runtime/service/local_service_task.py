"""`LocalServiceTask`: a service in this process."""

from __future__ import annotations

from sage.kernel.runtime.service.base_service_task import BaseServiceTask


class LocalServiceTask(BaseServiceTask):
    """A service whose calls are worked on by threads of this process, or by the caller (`inline`).

    Arguments and results are passed as they are, not copied: what a method keeps or returns is
    shared with its callers.

    Examples:
        >>> from sage.kernel.runtime.service.hosting.service_factory import ServiceFactory
        >>> service_task = LocalServiceTask(ServiceFactory("cache", dict))
        >>> service_task.start_service()
        >>> status = service_task.get_service_status()
        >>> service_task.stop_service()
    """
