"""YAML files remember where their values stand, hide what came from the environment, run nothing."""

import pickle
import string

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sage.common.errors import ConfigError
from sage.common.quiet import QuietDict, QuietList
from sage.common.settings import parse_size
from sage.common.substitution import SubstitutionError, substitute
from sage.common.yaml_file import MAX_VALUES, parse_yaml, read_yaml

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
names = st.text(min_size=1).filter(lambda name: name != "<<" and "${" not in name)
data = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(names, inner), max_leaves=20
)


def parse(text, **environ):
    return parse_yaml(text, "f.yaml", environ)


def problem(text, **environ):
    with pytest.raises(ConfigError) as caught:
        parse(text, **environ)
    return str(caught.value)


@given(data)
def test_reads_what_the_safe_loader_reads(value):
    """Escaping `${` is all that a dumped document needs to come back as it was."""
    text = yaml.safe_dump(value, allow_unicode=True).replace("${", "$${")
    assert parse(text).plain() == yaml.safe_load(text.replace("$${", "${"))


@given(data, st.sampled_from([None, True, False]))
def test_every_value_stands_where_it_says(value, flow):
    """The place of a key is the place at which its text stands in the file."""
    text = yaml.safe_dump(value, default_flow_style=flow).replace("${", "$${")
    lines = text.splitlines()

    def check(node):
        assert 1 <= node.line <= len(lines) + 1
        assert node.column >= 1
        if isinstance(node.value, dict):
            for key, child in node.value.items():
                assert child.path == (*node.path, key)
                if key.isascii() and key.isalpha():
                    start = lines[child.line - 1][child.column - 1 :].lstrip("'\"? ")
                    assert start.startswith(key[:1])
                check(child)
        elif isinstance(node.value, list):
            for index, child in enumerate(node.value):
                assert child.path == (*node.path, index)
                check(child)

    check(parse(text))


def test_places():
    root = parse("a:\n  - b: 1\n    c: 2\n")
    c = root.get("a").value[0].get("c")
    assert (c.line, c.column, c.where) == (3, 5, "f.yaml:3: a[0].c")
    assert repr(root) == "<f.yaml:1>"
    assert str(c.error("too small")) == "f.yaml:3: a[0].c: too small"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml:3: a: the key is given twice, first on line 1"),
        ("a: !!python/object/apply:os.getpid []", "f.yaml:1: a: the tag !!python/object/app"),
        ("a:\n  b: !secret x", "f.yaml:2: a.b: the tag !secret is not allowed"),
        ("1: x", "f.yaml:1: a key is not text"),
        ("on: x", "f.yaml:1: a key is not text"),
        ("? [a]\n: x", "f.yaml:1: a key is not text"),
        ("a: [1", "f.yaml:1: not valid YAML"),
        ("a: b: c", "f.yaml:1: not valid YAML"),
        ("a: 1\n--- \nb: 2", "f.yaml:2: not valid YAML"),
        ("a: &x [*x]", "f.yaml:1: a[0]: an alias stands inside of what it stands for"),
        ("a: &x {<<: *x}", "an alias stands inside of what it stands for"),
        ("<<: 3", "only mappings can be merged"),
        ("a: !!int x", "f.yaml:1: a: 'x' is not of the type int"),
        ("a: !!bool x", "is not of the type bool"),
        ("a: \x01", "f.yaml: not text"),
        ("a: " + "[" * 2000, "nested too deeply"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text, message):
    assert message in problem(text)


@pytest.mark.parametrize("more", ["[*{0},*{0}]", "{{<<: [*{0},*{0}]}}"])
def test_a_few_lines_cannot_stand_for_billions_of_values(more):
    lines = ["a: &a {x: 1}"]
    lines += [
        f"{b}: &{b} {more.format(a)}"
        for a, b in zip("abcdefghijklmnopqrstuvw", "bcdefghijklmnopqrstuvwx", strict=True)
    ]
    assert f"more than {MAX_VALUES} values" in problem("\n".join(lines))


def test_aliases_and_merges():
    root = parse("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\nd: {<<: [{x: 5}, *a]}")
    assert root.plain() == {
        "a": {"x": 1, "y": 2},
        "b": {"y": 3, "x": 1},
        "c": {"x": 1, "y": 2},
        "d": {"x": 5, "y": 2},
    }
    assert root.get("b").get("x").where == "f.yaml:1: b.x"


def test_keys_are_taken_as_they_stand():
    assert parse("${V}: 1\n$${V}: 2", V="x").plain() == {"${V}": 1, "$${V}": 2}


def test_dates_and_merge_signs_stay_text():
    assert parse("a: 2024-01-01\nb: =\nc: [<<]").plain() == {
        "a": "2024-01-01",
        "b": "=",
        "c": ["<<"],
    }


def test_an_empty_file_is_an_empty_mapping():
    assert parse("# nothing\n").mapping() == {}


def test_a_file_that_cannot_be_read(tmp_path):
    missing = tmp_path / "services.yaml"
    with pytest.raises(ConfigError, match=r"services\.yaml: cannot be read: No such file"):
        read_yaml(missing)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path)
    missing.write_bytes(b"a: \xff\xff")
    with pytest.raises(ConfigError, match="not text"):
        read_yaml(missing)


def test_variables_without_quotes_are_read_again():
    text = "a: ${V}\nb: '${V}'\nc: x${V}\nd: ${N:-yes}\ne: ${EMPTY}\nf: |\n  ${V}"
    root = parse(text, V="8080", EMPTY="").plain()
    assert list(root.values()) == [8080, "8080", "x8080", True, None, "8080"]


def test_a_variable_stays_one_scalar():
    """Whoever sets a variable sets a value, not the structure of the file."""
    assert parse("a: ${V}", V="x\nb: 1").plain() == {"a": "x\nb: 1"}
    assert parse("a: ${V}", V="[1, {b: 2}]").plain() == {"a": "[1, {b: 2}]"}
    assert parse("a: ${V}", V="!!python/name:os.system").plain()["a"].startswith("!!python")
    assert parse("a: ${V}", V="${W}", W="w").plain() == {"a": "${W}"}


def test_the_default_stands_in_for_what_is_empty_too():
    assert substitute("${A:-x}${B:-y}${C:-}", {"A": "", "B": "b"}) == ("xb", True)


def test_an_escaped_place_is_text():
    assert parse("a: $${x}\nb: $x $$ $").plain() == {"a": "${x}", "b": "$x $$ $"}
    assert not parse("a: $${x}").get("a").substituted


@pytest.mark.parametrize("text", ["${}", "${1a}", "${a b}", "${a", "${a-b}", "${a:b}"])
def test_a_malformed_place(text):
    with pytest.raises(SubstitutionError, match="is not a variable"):
        substitute(text, {"a": "1"})


def test_a_variable_that_is_not_set_is_named_with_its_place():
    message = problem("a: 1\nb:\n  url: 'db://${DB_URL}'")
    assert message.startswith("f.yaml:3: b.url: the environment variable DB_URL is not set")
    assert "${DB_URL:-default}" in message


@given(st.text(string.ascii_letters, min_size=8), st.text())
def test_substitution_keeps_the_rest(value, rest):
    rest = rest.replace("$", "")
    assert substitute(rest + "${V}" + rest, {"V": value}) == (rest + value + rest, True)


def test_a_value_from_the_environment_is_not_shown():
    root = parse("a:\n  - '${S}'\n  - x\nb: {c: '${S}', d: 1}\ne: ${S}", S="pw-secret")
    plain = root.plain()
    assert repr(plain) == "{'a': ['***', 'x'], 'b': {'c': '***', 'd': 1}, 'e': '***'}"
    assert plain["b"]["c"] == plain["a"][0] == "pw-secret"
    assert "pw-secret" not in repr(root) + repr(root.get("e")) + problem(
        "e: !!int ${S}", S="pw-secret"
    )
    again = pickle.loads(pickle.dumps(plain))
    assert (again, repr(again)) == (plain, repr(plain))


def test_quiet_containers_are_plain_otherwise():
    assert QuietDict({"a": 1}) == {"a": 1}
    assert QuietList([1]) == [1]
    assert repr(QuietDict({"a": 1})) == "{'a': 1}"


def test_unknown_keys_name_the_nearest():
    root = parse("cache:\n  proces_count: 2")
    with pytest.raises(ConfigError) as caught:
        root.get("cache").check_keys(["process_count", "timeout"])
    message = "f.yaml:2: cache.proces_count: unknown key. Did you mean 'process_count'?"
    assert str(caught.value) == message
    with pytest.raises(ConfigError, match="Known keys: x, y"):
        root.get("cache").check_keys(["y", "x"])


def test_a_mapping_is_demanded():
    with pytest.raises(ConfigError, match=r"f.yaml:1: a: must be a mapping .* not a list"):
        parse("a: [1]").get("a").mapping()


@given(st.integers(0, 10**6), st.sampled_from(["", "B", "K", "KB", "KiB", "mb", "GB", "tib"]))
def test_sizes(number, unit):
    power = " kmgt".index(unit[:1].lower()) if unit not in {"", "B"} else 0
    assert parse_size(f"{number} {unit}") == number * 1024**power


@pytest.mark.parametrize("text", ["", "GB", "-1", "1 PB", "1e3", "1 GB x"])
def test_what_is_not_a_size(text):
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)
