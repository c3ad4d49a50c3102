"""Serves the figures of environments to Prometheus, on this machine.

A port belongs to the process, so this is one of the few places with state of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from sage.common.errors import ConfigError
from sage.kernel.jobmanager.job import Job
from sage.kernel.runtime.service.hosting.service_host import ServiceHost

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer
    from wsgiref.types import WSGIApplication

    from prometheus_client import Metric
    from prometheus_client.registry import Collector

_HOST: Final = "127.0.0.1"
_POLL_SECONDS: Final = 0.05
_PATIENCE: Final = 10.0


class MetricsServer:
    """Answers `GET /metrics` with the figures of an environment's job and services.

    Made by `env.serve_metrics`. It listens on the loopback address alone: who wants to scrape from
    elsewhere puts a proxy in front of it. Figures are read when they are asked for. Environments of
    the same program that ask for the same port share it.

    Args:
        name: The name of the environment, which is that of its jobs.
        port: The port; 0: any that is free.
        job: Returns the job of the environment; None: there is none.
        services: The services of the environment.

    Attributes:
        is_open: Whether it tells of this environment.

    Raises:
        ConfigError: `prometheus-client` is not installed, or the port is taken.
    """

    def __init__(
        self, name: str, port: int, job: Callable[[], Job | None], services: ServiceHost
    ) -> None:
        try:  # only for those who want it, and only with the extra
            from sage.kernel.jobmanager.prometheus import JobCollector  # noqa: PLC0415
            from sage.kernel.runtime.service.prometheus import ServiceCollector  # noqa: PLC0415
        except ImportError as error:
            raise ConfigError(
                "figures for Prometheus need prometheus-client; install it with: "
                "pip install 'sage-dataflow[metrics]'"
            ) from error
        self._parts = [JobCollector(job), ServiceCollector(services, {"job_name": name})]
        with _lock:
            self._endpoint = _endpoints.get(port) or _Endpoint(port)
            self._endpoint.parts.extend(self._parts)
        self.is_open = True

    @property
    def port(self) -> int:
        """The port."""
        return self._endpoint.port

    @property
    def url(self) -> str:
        """Where Prometheus finds the figures."""
        return f"http://{_HOST}:{self.port}/metrics"

    def close(self) -> None:
        """Close the port, unless another environment has asked for it too; may be called twice."""
        with _lock:
            if not self.is_open:
                return
            self.is_open = False
            for part in self._parts:
                self._endpoint.parts.remove(part)
            if not self._endpoint.parts:
                self._endpoint.close()


class _Endpoint:
    """A port of this process. Made and closed while the lock is held.

    Attributes:
        parts: Whose figures it serves.
    """

    def __init__(self, port: int) -> None:
        from prometheus_client import CollectorRegistry, make_wsgi_app  # noqa: PLC0415

        self.parts: list[Collector] = []
        registry = CollectorRegistry()
        registry.register(self)
        self._server = _listen(port, make_wsgi_app(registry))
        self.port: int = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            args=(_POLL_SECONDS,),
            name="sage-metrics-server",
            daemon=True,
        )
        self._thread.start()
        _endpoints[self.port] = self

    def describe(self) -> Iterable[Metric]:
        """Yield nothing: what there is depends on whose figures it serves."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of all parts; each name once, as Prometheus wants it."""
        families: dict[str, Metric] = {}
        for part in tuple(self.parts):
            for metric in part.collect():
                families.setdefault(metric.name, metric)
                if families[metric.name] is not metric:
                    families[metric.name].samples.extend(metric.samples)
        return families.values()

    def close(self) -> None:
        """Close the port."""
        del _endpoints[self.port]
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


_lock = threading.Lock()
_endpoints: dict[int, _Endpoint] = {}


def _listen(port: int, app: WSGIApplication) -> WSGIServer:
    from socketserver import ThreadingMixIn  # http takes a while to import  # noqa: PLC0415
    from wsgiref.simple_server import (  # noqa: PLC0415
        WSGIRequestHandler,
        WSGIServer,
        make_server,
    )

    class Server(ThreadingMixIn, WSGIServer):
        """Answers each request in a thread of its own."""

        daemon_threads = True

    class Handler(WSGIRequestHandler):
        """Logs nothing."""

        timeout = _PATIENCE

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
            """Log nothing."""

    try:
        return make_server(_HOST, port, app, Server, Handler)
    except OSError as error:
        raise ConfigError(f"figures cannot be served at {_HOST}:{port}: {error}") from error
