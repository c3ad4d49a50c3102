"""How long it takes to import, and to run a job of one record."""

from __future__ import annotations

import subprocess
import sys
from statistics import median

from benchmarks import engines, workloads
from benchmarks.measure import seconds, table, take_turns

_IMPORTS = {"SAGE": "import sage", "Bytewax": "import bytewax.operators, bytewax.dataflow"}


def startup(rounds: int = 15) -> str:
    """A job of one record, and the import."""
    sink = workloads.new_sink()
    jobs = take_turns(
        {
            "SAGE": lambda: engines.sage_chain([1], sink),
            "Bytewax": lambda: engines.bytewax_chain([1], sink),
        },
        rounds,
    )
    bare = median(_python("pass") for _ in range(rounds))
    rows = [
        [name, f"{median(jobs[name]) * 1e3:.2f} ms", f"{_import_time(code, bare, rounds):.0f} ms"]
        for name, code in _IMPORTS.items()
    ]
    return table("Start", ["", "job of one record", "import"], rows)


def _import_time(code: str, bare: float, rounds: int) -> float:
    return (median(_python(code) for _ in range(rounds)) - bare) * 1e3


def _python(code: str) -> float:
    return seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True))
