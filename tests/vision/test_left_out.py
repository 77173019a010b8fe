"""LeftOutImages: the same choice for a conversation in every turn, and never more to make than allowed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from periscope.vision.left_out import LeftOutImages


def test_all_but_the_newest_new_images_are_left_out() -> None:
    """What is known does not count, and the same image twice counts once."""
    left_out = LeftOutImages()
    assert left_out.choose(["a", "b", "c", "d"], {"a", "b", "d"}, 2) == {0}
    assert left_out.choose(["a", "b", "b", "d"], {"a", "b", "d"}, 2) == {0}
    assert left_out.choose(["x", "y", "z"], (), 1) == frozenset()


def test_another_conversation_is_decided_about_by_itself() -> None:
    """An image that was left out somewhere is described where it is among the newest."""
    left_out = LeftOutImages()
    assert left_out.choose(["a", "b"], {"a", "b"}, 1) == {0}
    assert left_out.choose(["a"], {"a"}, 1) == frozenset()
    assert left_out.choose(["b", "a"], {"a"}, 1) == frozenset()
    assert left_out.choose(["a", "b", "c"], {"a", "c"}, 1) == {0}


def test_only_so_many_conversations_are_remembered() -> None:
    """The one that was not used for longest is forgotten, and decided about anew."""
    left_out = LeftOutImages(max_conversations=2)
    for name in ("a", "b", "a", "c"):
        left_out.choose([f"{name}1", f"{name}2"], {f"{name}1", f"{name}2"}, 1)
    assert left_out.choose(["a1", "a2"], {"a1"}, 1) == {0}
    assert left_out.choose(["b1", "b2"], {"b1"}, 1) == frozenset()


@given(st.lists(st.lists(st.sampled_from("abcdefghij"), max_size=4), max_size=8), st.integers(1, 3))
def test_a_conversation_that_grows_never_changes_what_was_left_out(turns: list[list[str]], max_made: int) -> None:
    """Of the images of earlier turns the same ones are left out in every turn, and no turn makes more than it may."""
    left_out, known, keys = LeftOutImages(), set[str](), list[str]()
    before: frozenset[int] = frozenset()
    for turn in turns:
        num_before = len(keys)
        keys += turn
        missing = set(keys) - known
        chosen = left_out.choose(keys, missing, max_made)
        assert {place for place in chosen if place < num_before} == before
        made = {key for place, key in enumerate(keys) if place not in chosen and key in missing}
        assert len(made) <= max_made
        assert all(keys[place] in missing or place in before for place in chosen)
        known |= made
        before = chosen
