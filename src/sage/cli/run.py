"""`sage run`: a program, with settings on top of those that its environments have."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Final

import click
import yaml

from sage.common.errors import ConfigError
from sage.core.api.overrides import overriding

_FAILED: Final = 1
_INTERRUPTED: Final = 130
_KEYS: Final = {
    "parallelism": "parallelism",
    "live": "live_view",
    "metrics_port": "metrics_port",
}


@click.command("run")
@click.argument("program", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--parallelism", "-p", type=click.IntRange(min=1), help="Run it in N subtasks.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Set a key of the configuration."
)
@click.option("--live", is_flag=True, help="Show operators, slots, checkpoints, services.")
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    metavar="N",
    help="Serve figures to Prometheus at 127.0.0.1:N; 0: any free port.",
)
def run_command(
    program: Path,
    arguments: tuple[str, ...],
    settings: tuple[str, ...],
    **options: int | bool | None,
) -> None:
    """Run a PROGRAM as `python PROGRAM` does, with settings on top of its own.

    The settings hold for every environment that the program makes, and win over what it sets itself.
    What stands behind -- is for the program:

        sage run app.py --parallelism 4 --set batch_size=512 -- --day monday

    --live shows each job on standard error while it runs, if that is a terminal.

    The exit code is 0, 1 if the program failed, 130 after Ctrl-C, or the program's own.
    """
    values = _parse(settings)
    for option, key in _KEYS.items():
        if options[option] is not None and options[option] is not False:
            _add(values, key, options[option])
    try:
        with overriding(values) as overrides:
            code = _run(program, arguments)
    except ConfigError as error:  # of these settings: what the program raises does not come here
        raise click.UsageError(str(error)) from error
    if values and not overrides.were_taken:
        keys = ", ".join(values)
        click.echo(f"the program has made no environment that could take: {keys}", err=True)
    sys.exit(code)


def _parse(settings: Iterable[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise click.UsageError(f"--set takes KEY=VALUE, not {setting!r}")
        _add(values, key.strip(), _scalar(key, text))
    return values


def _add(values: dict[str, Any], key: str, value: Any) -> None:
    if key in values:
        raise click.UsageError(f"{key} is set twice")
    values[key] = value


def _scalar(key: str, text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise click.UsageError(f"--set {key}={text}: this is no YAML: {error}") from error
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    raise click.UsageError(f"--set {key}={text}: a setting is one value; put quotes around a text")


def _run(program: Path, arguments: tuple[str, ...]) -> int:
    """Run a program as the main module of this process; return the exit code.

    It stays the main module: a job that it has submitted may outlive its last line. So this is not
    `runpy.run_path`, which takes its module away again.
    """
    path = os.path.abspath(program)
    main = ModuleType("__main__")
    main.__file__ = path
    sys.modules["__main__"] = main
    sys.argv = [str(program), *arguments]
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(path)
    try:
        exec(compile(program.read_bytes(), path, "exec"), main.__dict__)  # noqa: S102 - that is it
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - shown as Python shows it
        error = error.with_traceback(_behind_this_file(error.__traceback__))
        sys.excepthook(type(error), error, error.__traceback__)
        return _FAILED
    return 0


def _behind_this_file(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback from where the program begins."""
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace
