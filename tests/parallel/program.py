"""A program of its own: a job without end over two workers, whose functions say what they do.

PYTHONPATH=tests python -m parallel.program MARKS
"""

import logging
import os
import sys

from parallel.sources import GatedSource, mark
from sage import LocalEnvironment, MapFunction


class Says(MapFunction):
    """Prints the worker's process and leaves a mark when it has been opened; closes with a word."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def open(self):
        print(f"worker {os.getpid()}", flush=True)

    def execute(self, data):
        return mark(self.path)(data)

    def close(self):
        print(f"closed {os.getpid()}", flush=True)


def main():
    """Run until somebody ends it."""
    logging.basicConfig(level=logging.INFO)
    env = LocalEnvironment("program", {"parallelism": 2})
    env.from_source(GatedSource(range(100))).rebalance().map(Says(sys.argv[1])).sink(abs)
    env.execute(progress=False)


if __name__ == "__main__":
    main()
