"""Reading YAML text into values with their lines."""

from __future__ import annotations

import pytest

from periscope.config.document import Origin, read_document
from periscope.errors import ConfigError


def test_every_value_knows_its_line():
    """A key's origin is its line, an item's the line on which it starts."""
    document = read_document("a: 1\n\nb:\n  - c: 2\n    d: [3]\n", "models.yaml")
    assert document.tree == {"a": 1, "b": [{"c": 2, "d": [3]}]}
    lines = {loc: origin.line for loc, origin in document.origins.items()}
    assert lines[("a",)] == 1
    assert lines[("b", 0)] == 4
    assert lines[("b", 0, "d", 0)] == 5


def test_a_place_without_origin_has_that_of_its_surroundings():
    """A missing key is reported at the place where it should be."""
    document = read_document("a:\n  b: {c: 1}\n", "models.yaml")
    assert document.origin(("a", "b", "missing")) == Origin("models.yaml:2", 2)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("on: yes", {"on": True}),
        ("1: a", {"1": "a"}),
        ("day: 2024-01-31", {"day": "2024-01-31"}),
        ("day: 2024-13-99", {"day": "2024-13-99"}),
        ("a: ~", {"a": None}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("", {}),
        ("# only a comment", {}),
    ],
)
def test_keys_and_dates_are_text(text, tree):
    """Keys and dates are text as in the file, and anchors are copies."""
    document = read_document(text, "f")
    assert (document.tree, document.problems) == (tree, [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "f:3: a stands twice, first in line 1"),
        ("a: {b: 1, b: 2}", "f:1: a.b stands twice, first in line 1"),
        ("a: &x {b: 1}\nc:\n  <<: *x", "f:3: c merge keys (<<) are not supported; write the keys out"),
        ("? [a]\n: 1", "f:1: the file a list or mapping as key is not supported; write the keys out"),
        ("a: !!python/object:os.system x", "f:1: a cannot be read as python/object:os.system"),
        ("a: !%0A x", r"f:1: a cannot be read as '!\n'"),
        ("a: !!int one", "f:1: a cannot be read as int"),
        ("a: !!bool one", "f:1: a cannot be read as bool"),
        ("a: .nan", "f:1: a cannot be read as float"),
        ("a: " + "9" * 5000, "f:1: a cannot be read as int"),
        ("a: 0x" + "f" * 5000, "f:1: a cannot be read as int"),
        ('a: "\\ud800"', "f:1: a cannot be read as str"),
        ("a: &x [*x]", "f:1: a[0] contains itself"),
    ],
)
def test_yaml_that_hides_mistakes_is_a_problem(text, problem):
    """Duplicate keys, merge keys, tags, infinite values and cycles are each reported with their line."""
    document = read_document(text, "f")
    assert [f"{p.origin.text}: {p.text}" for p in document.problems] == [problem]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: [1", "f:2: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("a:\n\t- 1", "f:2: not valid YAML: found character '\\t' that cannot start any token"),
        ("a: 1\n---\nb: 1", "f:2: not valid YAML: but found another document"),
        ("a: 1\nb: \x00", "f:2: not valid YAML: special characters are not allowed"),
        ("a: *nothing", "f:1: not valid YAML: found undefined alias 'nothing'"),
        ("[" * 1500, "f:1: not valid: nested too deeply"),
    ],
)
def test_broken_yaml_is_one_problem_with_its_line(text, problem):
    """The error for invalid YAML has the line of the mistake."""
    with pytest.raises(ConfigError) as caught:
        read_document(text, "f")
    assert caught.value.problems == (problem,)


def test_anchors_cannot_blow_up_the_file():
    """Anchors that multiply into billions of values are an error and take no memory."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    with pytest.raises(ConfigError, match="holds more than 20000 values"):
        read_document("\n".join(lines), "f")


def test_a_value_can_be_laid_over_the_file():
    """A layer replaces the value and its origin, and creates missing mappings above it."""
    document = read_document("server: {port: 1}\nmemory:\n", "f")
    document.put(("server", "port"), 2, Origin("flag --port"))
    document.put(("memory", "budget"), 3, Origin("env X"))
    assert document.tree == {"server": {"port": 2}, "memory": {"budget": 3}}
    assert document.origin(("server", "port")).text == "flag --port"


def test_a_layer_leaves_a_file_of_the_wrong_shape_alone():
    """If the file has a list in place of a mapping, the layer leaves the problem to the schema."""
    document = read_document("server: [1]", "f")
    document.put(("server", "port"), 2, Origin("flag --port"))
    assert document.tree == {"server": [1]}
