"""Count the words of a text: the usual first program.

It shows a source (a text file, or a text of its own), `flat_map`, a keyed count that puts out each
word once at the end, and the results read back into the program.

    python examples/word_count.py
    python examples/word_count.py README.md --top 20
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path

from sage import DataStream, LocalEnvironment, SageError

TEXT = """\
The stream runs down to the river, and the river runs down to the sea.
The sea goes up to the clouds, and the clouds come down to the stream.
"""


def words(line: str) -> list[str]:
    """Return the words of a line in lower case."""
    return re.findall(r"\w+", line.lower())


def count_words(lines: DataStream[str]) -> DataStream[tuple[str, int]]:
    """Return the stream of the pairs (word, how often it occurs), one for each word."""
    return lines.flat_map(words).key_by(str).count(emit="final")


def most_frequent(path: Path | None, number: int) -> Sequence[tuple[str, int]]:
    """Run the pipeline and return the `number` most frequent words."""
    env = LocalEnvironment("word count")
    lines = env.from_batch(TEXT.splitlines()) if path is None else env.from_text_file(path)
    counts = count_words(lines).collect()
    env.execute()
    return sorted(counts, key=itemgetter(1), reverse=True)[:number]


def main() -> int:
    """Read the arguments, run, print the counts; return the exit status."""
    parser = argparse.ArgumentParser(description="Count the words of a text.")
    parser.add_argument("file", nargs="?", type=Path, help="a text file, .gz if you like")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="show N words (default: 5)")
    options = parser.parse_args()
    try:
        found = most_frequent(options.file, options.top)
    except SageError as error:
        print(f"word_count: {error}", file=sys.stderr)
        return 1
    for word, occurrences in found:
        print(f"{occurrences:6,}  {word}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
