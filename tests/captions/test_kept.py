"""KeptCaptions: the same captions as a plain dictionary would hold, bounded, and every change in the journal."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from periscope.captions.caption import Caption
from periscope.captions.kept import KeptCaption, KeptCaptions, num_bytes_of
from tests.captions.keeping import kept


class Replica:
    """A journal that is played back: what a store would hold."""

    def __init__(self) -> None:
        self.entries: dict[str, KeptCaption] = {}

    def put(self, kept: KeptCaption) -> None:
        self.entries[kept.key] = kept

    def touch(self, key: str, used_at: float) -> None:
        entry = self.entries[key]
        self.entries[key] = KeptCaption(key, entry.caption, entry.created_at, used_at)

    def drop(self, key: str) -> None:
        self.entries.pop(key, None)

    def clear(self) -> None:
        self.entries.clear()

    @property
    def by_use(self) -> list[KeptCaption]:
        return sorted(self.entries.values(), key=lambda entry: -entry.used_at)


class Clock:
    """Goes on by a second whenever somebody looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


KEYS = st.sampled_from("abcdef")
STEPS = st.one_of(
    st.tuples(st.just("keep"), KEYS, st.integers(0, 1300)),
    st.tuples(st.just("take"), KEYS),
    st.tuples(st.just("flush")),
    st.tuples(st.just("restart")),
)
MAX_BYTES = 3 * num_bytes_of(1, 100)


def evict(model: OrderedDict[str, str]) -> None:
    while sum(num_bytes_of(1, len(text)) for text in model.values()) > MAX_BYTES:
        model.popitem(last=False)


@given(st.lists(STEPS, max_size=40))
def test_what_is_kept_is_what_a_dictionary_would_hold(steps: list[tuple[Any, ...]]) -> None:
    """Also in order, within the bound, and after restarts from what the journal was told."""
    clock, replica, model = Clock(), Replica(), OrderedDict[str, str]()
    captions = KeptCaptions(max_bytes=MAX_BYTES, journal=replica, clock=clock)
    for step in steps:
        match step:
            case ("keep", str(key), int(length)):
                captions.keep(key, Caption("x" * length, 1))
                model.pop(key, None)
                if num_bytes_of(1, length) <= MAX_BYTES:
                    model[key] = "x" * length
                    evict(model)
            case ("take", str(key)):
                found = captions.take(key)
                assert (found and found.text) == model.get(key)
                if key in model:
                    model.move_to_end(key)
            case ("flush",):
                assert captions.clear() == len(model)
                model.clear()
            case _:
                captions = KeptCaptions(max_bytes=MAX_BYTES, journal=replica, clock=clock)
                captions.merge_older(replica.by_use)
        newest_first = [(entry.key, entry.caption.text) for entry in captions.recent(99)]
        assert newest_first[::-1] == list(model.items())
        assert [entry.key for entry in replica.by_use] == list(reversed(model))
        assert captions.num_bytes == sum(num_bytes_of(1, len(text)) for text in model.values())


def test_what_was_made_while_older_captions_were_read_wins() -> None:
    """It is newer, and stays the last to go."""
    captions = KeptCaptions(max_bytes=3 * num_bytes_of(1, 8), clock=Clock())
    captions.keep("b", Caption("new b", 1))
    captions.merge_older([kept("d", "old d"), kept("c", "old c"), kept("b", "old b"), kept("a", "old a")])
    assert [entry.caption.text for entry in captions.recent(9)] == ["new b", "old d", "old c"]


def test_captions_are_found_by_the_beginning_of_key_or_digest() -> None:
    """With the namespace or without it, the last used first, as many as are wanted."""
    captions = KeptCaptions(clock=Clock())
    for key in ("caption/ab1/0", "text/ab1/0", "caption/cd/0", "caption/ab2/0"):
        captions.keep(key, Caption("x", 1))
    captions.take("caption/ab1/0")
    assert [entry.key for entry in captions.recent(9, "ab")] == ["caption/ab1/0", "caption/ab2/0", "text/ab1/0"]
    assert [entry.key for entry in captions.recent(2, "caption/")] == ["caption/ab1/0", "caption/ab2/0"]
    assert captions.recent(0) == []
