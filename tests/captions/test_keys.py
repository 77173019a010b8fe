"""`cache_key`: what is kept under which key."""

from __future__ import annotations

from periscope.captions.keys import cache_key


def test_a_key_shows_its_kind_and_its_picture() -> None:
    """Whoever has the picture finds what is kept about it; other kinds of text about it have keys of their own."""
    key = cache_key("caption", "ab12", ["model", 256])
    assert key.startswith("caption/ab12/")
    assert key != cache_key("text", "ab12", ["model", 256])
    assert key != cache_key("caption", "ab13", ["model", 256])


def test_facts_are_never_mistaken_for_each_other() -> None:
    """Neither their number nor their type is lost on the way into the key."""
    facts: list[list[str | int]] = [["a", "b"], ["ab"], ["a", "b", ""], ["a,b"], [1], ["1"], []]
    assert len({cache_key("caption", "ab12", each) for each in facts}) == len(facts)
