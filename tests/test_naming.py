"""Which model a name means."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from periscope.core import find_model, is_default_name, require_model
from periscope.errors import ModelNotFound


@dataclass(frozen=True)
class Entry:
    name: str
    aliases: tuple[str, ...] = ()


FIRST = Entry("first", ("default", "second", "org/First-4bit"))
SECOND = Entry("second", ("s",))
MODELS = (FIRST, SECOND)


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("first", FIRST),
        ("s", SECOND),
        ("org/First-4bit", FIRST),
        ("second", SECOND),
        ("", SECOND),
        ("default", SECOND),
        ("First", None),
        ("org/Second", None),
    ],
)
def test_a_name_means_one_model(asked: str, meant: Entry | None) -> None:
    """A name goes before an alias, hub ids are aliases, and the default names mean the default model, whatever else."""
    assert find_model(MODELS, asked, default=SECOND) is meant
    assert is_default_name(asked) == (asked in {"", "default"})


def test_without_a_default_its_names_mean_nothing_of_their_own() -> None:
    """Where there is no default model, only a model that is called so is meant."""
    assert find_model(MODELS, "") is None
    assert find_model(MODELS, "default") is FIRST


def test_an_unknown_model_is_told_with_those_there_are() -> None:
    """The error names the others, and does not repeat a name of any length."""
    with pytest.raises(ModelNotFound, match=r"no model 'x{128}' here\. Known: first, second\.") as caught:
        require_model(MODELS, "x" * 10_000, default=FIRST)
    assert caught.value.param == "model"
    with pytest.raises(ModelNotFound, match="Known: none"):
        require_model((), "first")
    assert require_model(MODELS, "s") is SECOND
