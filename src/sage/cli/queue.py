"""`sage queue`: the message queues in the shared memory of this user."""

from __future__ import annotations

import click

from sage.common.errors import QueueError
from sage.kernel.transport.sage_queue import (
    QueueStatus,
    list_queues,
    remove_queue,
    remove_stale_queues,
    stat_queue,
)


@click.group("queue")
def queue_group() -> None:
    """Look at the message queues in shared memory, and remove stale ones."""


@queue_group.command("ls")
def ls() -> None:
    """List the queues: name, state, messages, bytes, and the processes that have it open."""
    for name in list_queues():
        try:
            click.echo(_line(stat_queue(name)))
        except QueueError as error:  # it went away while it was being looked at
            click.echo(f"{name}  {error}", err=True)


@queue_group.command("stat")
@click.argument("name")
def stat(name: str) -> None:
    """Show all that is known of the queue NAME."""
    try:
        status = stat_queue(name)
    except QueueError as error:
        raise click.ClickException(str(error)) from error
    for label, value in _details(status).items():
        click.echo(f"{label:>14}  {value}")


@queue_group.command("rm")
@click.argument("names", nargs=-1)
@click.option("--stale", is_flag=True, help="Remove all queues that no living process has open.")
def rm(names: tuple[str, ...], stale: bool) -> None:
    """Remove the queues NAMES, with what is in them. A queue that is in use is left alone."""
    if stale == bool(names):
        raise click.UsageError("name the queues to remove, or give --stale")
    removed = list(remove_stale_queues()) if stale else []
    for name in names:
        try:
            remove_queue(name)
        except QueueError as error:
            raise click.ClickException(str(error)) from error
        removed.append(name)
    for name in removed:
        click.echo(f"removed {name}")


def _line(status: QueueStatus) -> str:
    state = "in use" if status.in_use else "stale"
    if status.problem is not None:
        return f"{status.name}  unusable: {status.problem}"
    pids = ",".join(map(str, status.peers)) or "-"
    return f"{status.name}  {state}  {status.messages} messages  {status.file_bytes} bytes  {pids}"


def _details(status: QueueStatus) -> dict[str, object]:
    details: dict[str, object] = {
        "name": status.name,
        "state": "in use" if status.in_use else "stale",
        "processes": ", ".join(map(str, status.peers)) or "none",
        "memory": f"{status.file_bytes:,} bytes",
    }
    if status.problem is not None:
        return {**details, "problem": status.problem}
    details |= {"capacity": f"{status.capacity:,} bytes", "messages": status.messages}
    return {**details, **dict(status.statistics or {})}
