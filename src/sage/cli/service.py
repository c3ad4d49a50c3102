"""`sage service`: the services that run on this machine, as their environments tell of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from sage.cli.running_service import RunningService, find_services, running_services
from sage.common.errors import SageError
from sage.kernel.runtime.service.service_registry import ServiceRegistry

if TYPE_CHECKING:
    from rich.console import Console

NONE_RUN = "No services are running."

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("service")
def service_group() -> None:
    """Look at the services that run on this machine, of all programs of this user."""


@service_group.command("ls")
@_as_json
def ls(as_json: bool) -> None:
    """List the services: where they run, how they are, and how much they are called."""
    with _registry() as registry:
        services = running_services(registry)
    if as_json:
        _print_json([service.summary() for service in services])
    elif not services:
        click.echo(NONE_RUN)
    else:
        from sage.cli.service_tables import service_table  # rich loads slowly  # noqa: PLC0415

        _console().print(service_table(services))


@service_group.command("status")
@click.argument("name", required=False)
@_as_json
def status(name: str | None, as_json: bool) -> None:
    """Show what became of the calls of the service NAME, or of all services.

    These are the calls from the process of its environment.
    """
    with _registry() as registry:
        services = _find(registry, name)
    if as_json:
        _print_json([service.details() for service in services])
    elif not services:
        click.echo(NONE_RUN)
    else:
        from sage.cli.service_tables import status_view  # rich loads slowly  # noqa: PLC0415

        for service in services:
            _console().print(status_view(service))


@service_group.command("health")
@click.argument("name", required=False)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=5.0,
    show_default=True,
    help="Seconds that a service may take to answer.",
)
@_as_json
def health(name: str | None, timeout: float, as_json: bool) -> None:
    """Ask the service NAME, or all services, how they are.

    A service in processes of its own is asked itself; of the others, what their environment said
    last is told. The exit code is 0 if all are well, 1 if one is not, and 2 if there is no NAME.
    """
    # What asks a service is loaded by those who do.
    from sage.cli.service_health import check_health  # noqa: PLC0415

    with _registry() as registry:
        healths = [check_health(service, timeout) for service in _find(registry, name)]
    if as_json:
        _print_json([health.plain() for health in healths])
    elif not healths:
        click.echo(NONE_RUN)
    else:
        from sage.cli.service_tables import health_table  # rich loads slowly  # noqa: PLC0415

        _console().print(health_table(healths))
    if not all(health.well for health in healths):
        raise click.exceptions.Exit(1)


@service_group.command("top")
@click.option("--once", is_flag=True, help="Print the table once; so it is without a terminal too.")
def top(once: bool) -> None:
    """Follow the services in a table that is renewed each second. To end, type q or Ctrl-C."""
    from rich.text import Text  # rich loads slowly  # noqa: PLC0415

    from sage.cli.service_tables import service_table  # noqa: PLC0415
    from sage.cli.service_top import follow  # noqa: PLC0415

    with _registry() as registry:

        def draw() -> Any:
            services = running_services(registry)
            return service_table(_busiest_first(services)) if services else Text(NONE_RUN)

        console = _console()
        if once or not console.is_terminal:
            console.print(draw())
        else:
            follow(console, draw)


def _busiest_first(services: list[RunningService]) -> list[RunningService]:
    return sorted(services, key=lambda s: (-(s.calls_per_second or 0.0), s.name))


def _console() -> Console:
    from rich.console import Console  # rich loads slowly  # noqa: PLC0415

    return Console(highlight=False)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


@contextmanager
def _registry() -> Iterator[ServiceRegistry]:
    try:
        with ServiceRegistry() as registry:
            yield registry
    except (SageError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _find(registry: ServiceRegistry, name: str | None) -> list[RunningService]:
    try:
        return find_services(registry, name)
    except LookupError as error:
        raise click.UsageError(str(error)) from error
