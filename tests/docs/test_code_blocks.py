"""Every block of Python in the documents runs, and prints what the document says it prints.

The blocks of a document are one program: they run in order and share a namespace, in a fresh
directory. A `text` block shows what has been printed since the `text` block before it. Blocks in
other languages (`console`, `toml` …) are prose.
"""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from sybil import Document, Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]

run_python = PythonEvaluator()


def run_and_record(example: Example) -> None:
    """Run a block and keep what it prints."""
    printed = example.namespace.setdefault("_printed", StringIO())
    with redirect_stdout(printed):
        run_python(example)


def compare(example: Example) -> str | None:
    """Say how what was printed differs from what the document shows; None if it does not."""
    printed = example.namespace.pop("_printed", StringIO()).getvalue()
    shown: Any = example.parsed
    if printed.rstrip() == shown.rstrip():
        return None
    return f"{example.path}:{example.line}: the document shows\n{shown}\nand printed is\n{printed}"


def parse(path: Path) -> Document:
    """Find the blocks of a document."""
    parsers = (CodeBlockParser("python", run_and_record), CodeBlockParser("text", compare))
    return Sybil(parsers=parsers, path=str(path.parent), filenames=[path.name]).parse(path)


@pytest.mark.parametrize("path", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in DOCUMENTS])
def test_blocks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program that the blocks of a document make up runs, and prints what is shown."""
    monkeypatch.chdir(tmp_path)
    for example in parse(path).examples():
        example.evaluate()


def test_a_block_that_raises_is_found(tmp_path: Path) -> None:
    """A broken block fails the test of its document, at its own line."""
    document = tmp_path / "broken.md"
    document.write_text("# Title\n\n```python\n1 / 0\n```\n", encoding="utf-8")
    (example,) = parse(document).examples()
    with pytest.raises(ZeroDivisionError) as caught:
        example.evaluate()
    assert caught.traceback[-1].lineno == 3  # counted from 0


def test_a_wrong_output_is_found(tmp_path: Path) -> None:
    """A document that shows another output than its block prints fails."""
    document = tmp_path / "wrong.md"
    document.write_text("```python\nprint(1)\n```\n\n```text\n2\n```\n", encoding="utf-8")
    first, second = parse(document).examples()
    first.evaluate()
    with pytest.raises(Exception, match="the document shows"):
        second.evaluate()
