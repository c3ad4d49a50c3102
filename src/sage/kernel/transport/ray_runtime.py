"""Ray in this process: imported when it is needed, started if nobody has, ended by who started it.

Whoever needs Ray takes a `RayLease` and gives it back. The first one starts a Ray of this machine
alone if the program has not called `ray.init` itself; the last one to be given back shuts that Ray
down. A Ray that the program has started is left as it is. A worker joins the Ray of its program.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any, Final

from sage.common.errors import ConfigError

_LOCAL_SETTINGS: Final = {
    # Despite its name this says on every system whether Ray listens beyond the loopback. Ray reads it
    # when it is imported.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}

_turn = threading.Lock()
_leases: set[RayLease] = set()
"""Those that keep a Ray alive that was started here; as Ray itself, one set for the process."""


def import_ray() -> ModuleType:
    """Return the `ray` module.

    Raises:
        ConfigError: Ray is not installed.
    """
    try:
        import ray  # takes half a second, and is an extra  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "Ray is not installed: install sage-dataflow[ray] (`pip install 'sage-dataflow[ray]'`)"
        ) from error
    return ray


def ray_runs() -> bool:
    """Say whether Ray runs in this process, without importing it."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def start_local_ray(**settings: Any) -> None:
    """Start a Ray that listens on the loopback alone, without a dashboard.

    Ray decides where it listens when it is imported. Where a program has imported it and not started
    it, SAGE does not open ports to the network on its own, but asks for `ray.init` to be called.

    Args:
        settings: Further arguments of `ray.init`.

    Raises:
        ConfigError: Ray is not installed, or would listen beyond the loopback.
        RuntimeError: Ray runs in this process already.
    """
    with _local_settings():
        ray = import_ray()
        if ray.util.get_node_ip_address() != "127.0.0.1":
            raise ConfigError(
                "Ray was imported before SAGE could tell it to listen on the loopback alone: call "
                "ray.init() before services start, or import ray after them"
            )
        ray.init(
            address="local", **{"include_dashboard": False, "configure_logging": False} | settings
        )


def ray_cluster() -> str:
    """Return the address at which other processes of this machine find the Ray that runs here."""
    return str(import_ray().get_runtime_context().gcs_address)


def join_ray(cluster: str) -> None:
    """Use a Ray that another process has started.

    Args:
        cluster: What `ray_cluster` returned there.

    Raises:
        ConfigError: Ray is not installed.
        ConnectionError: there is none.
    """
    with _local_settings() if cluster.startswith("127.0.0.1:") else nullcontext():
        import_ray().init(address=cluster, configure_logging=False, log_to_driver=False)


@contextmanager
def _local_settings() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _LOCAL_SETTINGS}
    os.environ.update(_LOCAL_SETTINGS)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = old


class RayLease:
    """The right to use Ray, until it is given back.

    Args:
        cluster: The address of a Ray that is joined if none runs here; None: one is started.

    Raises:
        ConfigError: As `start_local_ray`.
        ConnectionError: As `join_ray`.
    """

    def __init__(self, cluster: str | None = None) -> None:
        with _turn:
            if not ray_runs():
                _leases.clear()  # of a Ray that has been shut down by hand
                if cluster is None:
                    start_local_ray()
                else:
                    join_ray(cluster)
                _leases.add(self)
            elif _leases:
                _leases.add(self)

    def close(self) -> None:
        """Give it back; the last one ends a Ray that the first one has started. Idempotent."""
        with _turn:
            if self not in _leases:
                return
            _leases.discard(self)
            if not _leases:
                import_ray().shutdown()
