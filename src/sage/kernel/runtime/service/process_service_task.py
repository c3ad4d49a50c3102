"""`ProcessServiceTask`: a service in processes of its own."""

from __future__ import annotations

from typing import Any

from sage.common.errors import QueueInUseError, QueueNotFoundError
from sage.kernel.runtime.service.base_service_task import BaseServiceTask
from sage.kernel.runtime.service.call.service_future import ServiceFuture, Waiter
from sage.kernel.runtime.service.channel.process_channel import ProcessChannel
from sage.kernel.runtime.service.channel.service_address import ServiceAddress
from sage.kernel.runtime.service.hosting.service_factory import ServiceFactory
from sage.kernel.runtime.service.hosting.service_process import ProcessOrder
from sage.kernel.runtime.service.hosting.service_process_manager import ServiceProcessManager
from sage.kernel.runtime.service.middleware import ServiceMiddleware
from sage.kernel.transport.sage_queue import SageQueue, remove_queue

_CONTROL_BYTES = 1 << 16
_STOP_SECONDS = 10.0


class ProcessServiceTask(BaseServiceTask):
    """Replicas of a service, each in a process of its own, started again when they die.

    Args:
        service_factory: Makes the service, in the processes.
        address: Where it takes requests.
        manager: Starts and watches processes.
        channel: The way to it from this process.
    """

    task_class: type[BaseServiceTask] = BaseServiceTask
    others: tuple[ServiceAddress, ...] = ()
    middleware: tuple[ServiceMiddleware, ...] = ()

    def __init__(
        self,
        service_factory: ServiceFactory,
        address: ServiceAddress,
        manager: ServiceProcessManager,
        channel: ProcessChannel,
    ) -> None:
        super().__init__(service_factory)
        self.address = address
        self._manager = manager
        self._channel = channel
        self._queues: list[SageQueue] = []

    @property
    def waiter(self) -> Waiter:
        """Brings the answers."""
        return self._channel.waiter

    def send(self, future: ServiceFuture) -> None:
        """Send the request to one of the replicas."""
        self._channel.send(future)

    def get_statistics(self) -> dict[str, Any]:
        """Return how many replicas there are, and how many of them are up."""
        processes = self._manager.processes(self.name)
        return {
            "replicas": self.address.replicas,
            "up": sum(process.is_up for process in processes),
            "pids": [p.process.pid for p in processes if p.process is not None and p.is_up],
        }

    def _start(self) -> None:
        try:
            for replica in range(self.address.replicas):
                self._create_queues(replica)
            orders = [
                ProcessOrder(
                    self.service_factory,
                    self.task_class,
                    self.address,
                    replica,
                    self.others,
                    self.middleware,
                )
                for replica in range(self.address.replicas)
            ]
            processes = [self._manager.start_service_process(order) for order in orders]
            for process in processes:
                self._manager.wait_ready(process, self.options.start_timeout)
        except BaseException:
            self._stop()
            raise

    def _create_queues(self, replica: int) -> None:
        requests = self.address.requests(replica)
        self._queues.append(SageQueue.create(requests, self.options.queue_bytes))
        self._queues.append(SageQueue.create(self.address.control(replica), _CONTROL_BYTES))

    def _stop(self) -> None:
        self._manager.stop_service(self.name, _STOP_SECONDS)
        self._channel.close()
        for handle in self._queues:
            handle.shutdown()
            handle.close()
            try:
                remove_queue(handle.name)
            except QueueNotFoundError:
                continue  # somebody has tidied up already
            except QueueInUseError:
                continue  # a service that calls this one still runs; the host sweeps at the end
        self._queues.clear()
