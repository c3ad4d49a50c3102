"""`sage`: the group that all commands belong to."""

from __future__ import annotations

import click

from sage import __version__
from sage.cli.queue import queue_group
from sage.cli.run import run_command
from sage.cli.service import service_group


@click.group()
@click.version_option(__version__, prog_name="sage")
def main() -> None:
    """SAGE, a Python dataflow engine."""


main.add_command(run_command)
main.add_command(queue_group)
main.add_command(service_group)
