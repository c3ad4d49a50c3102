"""What a program prints while something is shown below comes out whole, and all of it."""

import io
import logging
import sys
import threading

from hypothesis import given
from hypothesis import strategies as st

from sage.core.api.lines_above import LinesAbove, Streams


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self):
        return True


@given(st.lists(st.text(alphabet="ab\n", max_size=6)))
def test_lines_come_out_whole_and_the_rest_at_the_end(pieces):
    shown, stream = [], io.StringIO()
    lines = LinesAbove(stream, lambda _, text: shown.append(text + "\n"))
    for number, piece in enumerate(pieces):
        assert lines.write(piece) == len(piece)
        text = "".join(pieces[: number + 1])
        assert "".join(shown) == text[: text.rfind("\n") + 1]
        assert lines.begun() == text[text.rfind("\n") + 1 :]
    lines.let_go()
    assert "".join(shown) + stream.getvalue() == "".join(pieces)
    lines.write("later")
    assert stream.getvalue().endswith("later")


def test_lines_of_threads_are_not_mixed():
    shown = []
    lines = LinesAbove(io.StringIO(), lambda _, text: shown.append(text))
    turns = threading.Barrier(2)

    def say(word):
        for letter in word:
            turns.wait(10)
            lines.write(letter)
        lines.write("\n")

    threads = [threading.Thread(target=say, args=(word,)) for word in ("north", "south")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(shown) == ["north", "south"]


def test_a_count_on_one_line_is_seen_as_it_is_and_kept_short():
    shown = []
    lines = LinesAbove(io.StringIO(), lambda _, text: shown.append(text))
    for percent in range(100):
        lines.write(f"\r{percent} %")
        assert lines.begun() == f"{percent} %"
    assert max(map(len, lines._begun.values())) < 10
    lines.write("\n")
    lines.write("windows\r\nlines\r\n")
    lines.write("10 %\r")
    assert lines.begun() == "10 %"
    lines.write("20 %\n")
    assert shown == ["99 %", "windows\nlines", "20 %"]


def test_print_and_the_handlers_of_logs_go_through_and_are_given_back(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(sys, "stderr", Terminal())
    shown = []
    handler = logging.StreamHandler(sys.stderr)
    logger = logging.getLogger("above")
    logger.addHandler(handler)
    before = sys.stdout, sys.stderr, handler.stream
    streams = Streams(lambda stream, text: shown.append((stream, text)))
    streams.take()
    try:
        print("printed")
        logger.warning("logged")
        late = logging.StreamHandler()  # takes hold of what stands for standard error now
        print("begun", end="")
        assert streams.begun() == "begun"
        assert (sys.stdout.isatty(), sys.stdout.encoding) == (True, before[0].encoding)
    finally:
        streams.give_back()
        logger.removeHandler(handler)
    assert shown == [(before[0], "printed"), (before[1], "logged")]
    assert (sys.stdout, sys.stderr, handler.stream) == before
    assert sys.stdout.getvalue() == "begun"
    late.emit(logging.makeLogRecord({"msg": "late"}))
    assert sys.stderr.getvalue() == "late\n"


def test_what_goes_to_a_file_is_let_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", Terminal())
    shown = []
    streams = Streams(lambda stream, text: shown.append(text))
    streams.take()
    print("to the file")
    print("to the terminal", file=sys.stderr)
    streams.give_back()
    assert shown == ["to the terminal"]
    assert sys.stdout.getvalue() == "to the file\n"
