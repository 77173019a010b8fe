"""YAML text -> plain values, each with the line it stands in. The only place that imports yaml; reads no files.

Stricter than `yaml.safe_load`: a key that stands twice is a problem instead of the last one winning, keys are text
(`on:` stays "on"), dates are text, and custom tags and merge keys are refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import yaml

from periscope.config.keys import Loc, dotted
from periscope.errors import ConfigError

_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = {_TAG + "str", _TAG + "timestamp"}
_SCALAR_TAGS = {_TAG + "null", _TAG + "bool", _TAG + "int", _TAG + "float"}
#: More values are refused: YAML anchors can multiply into billions of them.
_MAX_VALUES = 20_000
#: Every number of the schema is smaller; refuses .inf, .nan and integers too long to print.
_MAX_NUMBER = 2**64


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from: `models.yaml:12`, `env PERISCOPE_SERVER__PORT`, `flag --port`."""

    text: str
    line: int = 0


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that cannot be used."""

    origin: Origin
    text: str


@dataclass(slots=True)
class Document:
    """Values as plain Python, and where each came from. Owned by one `load` call while layers are put on top."""

    label: str
    tree: Any = field(default_factory=dict)
    origins: dict[Loc, Origin] = field(default_factory=dict)
    empty: set[Loc] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def origin(self, loc: Loc) -> Origin:
        """The origin of the value at `loc`, else of what is around it."""
        while loc and loc not in self.origins:
            loc = loc[:-1]
        return self.origins.get(loc) or self.at(1)

    def at(self, line: int) -> Origin:
        """A line of the file."""
        return Origin(f"{self.label}:{line}", line)

    def put(self, loc: Loc, value: object, origin: Origin) -> None:
        """Set the value at `loc`, unless a parent of it is not a mapping (which is refused later)."""
        node = self.tree
        for key in loc[:-1]:
            if not isinstance(node, dict):
                return
            if node.get(key) is None:
                node[key] = {}
            node = node[key]
        if isinstance(node, dict):
            node[loc[-1]] = value
            self.origins[loc] = origin
            self.empty.discard(loc)

    def forget_empty(self) -> None:
        """Drop the origins of keys without a value, which are at their defaults. The document must be valid."""
        for loc in self.empty:
            self.origins.pop(loc, None)


def config_error(problems: Iterable[Problem]) -> ConfigError:
    """Pure: all problems, environment and flags first, then the file from top to bottom."""
    ordered = sorted(problems, key=lambda problem: problem.origin.line)
    return ConfigError(tuple(f"{problem.origin.text}: {problem.text}" for problem in ordered))


def read_document(text: str, label: str) -> Document:
    """Pure: the text as values with lines; problems with single values are collected in the document.

    Raises:
        ConfigError: the text is not YAML at all.
    """
    document = Document(label)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _Reader(document).read(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = Problem(document.at(mark.line + 1 if mark else 1), f"not valid YAML: {error.problem}")
        raise config_error([problem]) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise config_error([Problem(document.at(line), f"not valid YAML: {error.reason}")]) from error
    except RecursionError:
        raise config_error([Problem(document.at(1), "not valid: nested too deeply")]) from None
    return document


class _Reader:
    """Fills one document from the nodes of a YAML text."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._scalars = yaml.SafeLoader("")
        self._open: set[int] = set()
        self._num_values = 0

    def read(self, node: yaml.Node | None) -> None:
        if node is not None:
            self._document.tree = self._value(node, ())

    def _value(self, node: yaml.Node, loc: Loc) -> Any:
        self._document.origins.setdefault(loc, self._document.at(node.start_mark.line + 1))
        self._num_values += 1
        if id(node) in self._open:
            return self._refuse(node, loc, "contains itself")
        if self._num_values > _MAX_VALUES:
            raise config_error([Problem(self._document.at(1), f"holds more than {_MAX_VALUES} values")])
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, loc)
            if isinstance(node, yaml.SequenceNode):
                return [self._value(item, (*loc, index)) for index, item in enumerate(node.value)]
            return self._scalar(node, loc)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == _TAG + "merge":
                what = "merge keys (<<) are" if isinstance(key_node, yaml.ScalarNode) else "a list or mapping as key is"
                self._refuse(key_node, loc, f"{what} not supported; write the keys out")
                continue
            key = key_node.value if key_node.value.isprintable() else ascii(key_node.value)
            here = (*loc, key)
            if key in values:
                self._refuse(key_node, here, f"stands twice, first in line {self._document.origins[here].line}")
                continue
            self._document.origins[here] = self._document.at(key_node.start_mark.line + 1)
            values[key] = self._value(value_node, here)
        return values

    def _scalar(self, node: yaml.Node, loc: Loc) -> Any:
        try:
            if node.tag in _TEXT_TAGS:
                node.value.encode()  # a lone surrogate cannot be printed, sent or stored
                return node.value
            value = self._scalars.construct_object(node) if node.tag in _SCALAR_TAGS else ...
        except (LookupError, ValueError):
            value = ...
        if value is None:
            self._document.empty.add(loc)
        if value is ... or (isinstance(value, float | int) and not abs(value) <= _MAX_NUMBER):
            tag = node.tag.removeprefix(_TAG)
            return self._refuse(node, loc, f"cannot be read as {tag if tag.isprintable() else repr(tag)}")
        return value

    def _refuse(self, node: yaml.Node, loc: Loc, text: str) -> None:
        origin = self._document.at(node.start_mark.line + 1)
        self._document.problems.append(Problem(origin, f"{dotted(loc) or 'the file'} {text}"))
