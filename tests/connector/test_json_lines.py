"""JSON lines: objects come out, what is wrong is said, and the decoder travels."""

import pickle

import msgspec
import pytest

from sage.connector.json_lines import is_not_blank, json_line_decoder


class Trip(msgspec.Struct):
    origin: str
    delay: int | None = None


def test_any_json_is_taken_without_a_type():
    decode = json_line_decoder()
    assert [decode(line) for line in ('{"a": [1, null]}', "3", "null")] == [
        {"a": [1, None]},
        3,
        None,
    ]


def test_a_type_is_made_and_checked():
    decode = pickle.loads(pickle.dumps(json_line_decoder(dict[str, int])))
    assert decode('{"a": 1}') == {"a": 1}
    assert json_line_decoder(Trip)('{"origin": "JFK"}') == Trip("JFK")
    with pytest.raises(
        ValueError, match=r"Expected `int`, got `str`.*the line is '{\"a\": \"x\"}'"
    ):
        decode('{"a": "x"}')


def test_what_is_not_json_is_said():
    with pytest.raises(ValueError, match=r"not JSON: .*the line is 'oops'"):
        json_line_decoder()("oops")


@pytest.mark.parametrize(("line", "expected"), [("", False), (" \t", False), (" x", True)])
def test_blank_lines_are_told_apart(line, expected):
    assert is_not_blank(line) is expected
