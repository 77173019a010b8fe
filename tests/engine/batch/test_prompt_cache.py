"""PromptCache: it finds the longest prefix, keeps within its bytes, and its copies are independent."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import ArraysCache, KVCache

from periscope.engine.batch.prompt_cache import MAX_STATES, LayerCaches, PromptCache
from periscope.engine.batch.sharing import MIN_TOKENS, longest_prefix

MB = 2**20
CHAT = list(range(100))


def state(tokens: Sequence[int]) -> LayerCaches:
    """A state of one layer whose keys are the tokens themselves."""
    cache = KVCache()
    keys = mx.array(list(tokens), dtype=mx.float32).reshape(1, 1, -1, 1)
    cache.update_and_fetch(keys, keys)
    return [cache]


def tokens_in(caches: LayerCaches) -> list[int]:
    keys, _ = caches[0].keys_and_values()
    return [int(value) for value in keys.flatten().tolist()]


def fixed_state(num: int) -> LayerCaches:
    """A state of one layer that cannot be trimmed, as of a state-space model."""
    cache = ArraysCache(1)
    cache[0] = mx.full((1, 4), num)
    return [cache]


def fetch(cache: PromptCache, tokens: Sequence[int]) -> tuple[LayerCaches | None, int]:
    """Find and copy a prefix as a step does: the plan names it, the executor fetches it."""
    prefix = longest_prefix(np.asarray(tokens, dtype=np.int64), cache.states)
    return (None, 0) if prefix is None else (cache.fetch(prefix.key, prefix.num_tokens), prefix.num_tokens)


def test_the_longest_kept_prefix_is_found() -> None:
    """The next turn of a conversation finds all of the last turn, and the state holds exactly those tokens."""
    cache = PromptCache(MB)
    cache.keep(CHAT[:40], state(CHAT[:40]))
    cache.keep([*CHAT[:60], 999], state([*CHAT[:60], 999]))
    caches, length = fetch(cache, CHAT)
    assert length == 60
    assert caches is not None
    assert tokens_in(caches) == CHAT[:60]


def test_an_exact_hit_leaves_one_token_to_compute() -> None:
    """A fully cached prompt is trimmed by one token, because the model needs an input."""
    cache = PromptCache(MB)
    cache.keep(CHAT, state(CHAT))
    caches, length = fetch(cache, CHAT)
    assert length == len(CHAT) - 1
    assert caches is not None
    assert tokens_in(caches) == CHAT[:-1]


def test_what_is_handed_out_can_be_written_to() -> None:
    """Writing to a fetched state does not change the kept one."""
    cache = PromptCache(MB)
    cache.keep(CHAT, state(CHAT))
    caches, _ = fetch(cache, [*CHAT, 1])
    assert caches is not None
    keys = mx.full((1, 1, 1, 1), 7.0)
    caches[0].update_and_fetch(keys, keys)
    mx.eval(caches[0].keys)
    again, _ = fetch(cache, [*CHAT, 1])
    assert again is not None
    assert tokens_in(again) == CHAT


def test_interleaved_conversations_do_not_evict_each_other() -> None:
    """Three conversations at once each find their own last turn."""
    cache = PromptCache(MB)
    chats = [[1000 * agent + i for i in range(120)] for agent in range(3)]
    for end in (40, 80, 119):
        for chat in chats:
            known = fetch(cache, chat[: end + 1])[1]
            assert known == {40: 0, 80: 40, 119: 80}[end]
            cache.keep(chat[:end], state(chat[:end]))
    assert len(cache) == 3  # each turn took the place of the one before


def test_a_state_that_cannot_be_trimmed_serves_only_its_continuations() -> None:
    """Checkpoints of state-space models are used whole or not at all."""
    cache = PromptCache(MB)
    cache.keep(CHAT[:30], fixed_state(30))
    cache.keep(CHAT[:60], fixed_state(60))
    assert fetch(cache, CHAT)[1] == 60
    assert fetch(cache, CHAT[:50])[1] == 30
    assert fetch(cache, CHAT[:60])[1] == 30  # one token must be left
    assert fetch(cache, CHAT[:20]) == (None, 0)


def test_a_few_equal_tokens_are_no_hit() -> None:
    """A shared prefix below the threshold is not used, because copying costs more than it saves."""
    cache = PromptCache(MB)
    cache.keep(CHAT, state(CHAT))
    assert fetch(cache, [*CHAT[: MIN_TOKENS - 1], 5000, 5001]) == (None, 0)


def test_spare_capacity_is_not_kept() -> None:
    """A state of a hundred tokens takes a hundred tokens' bytes, not a whole block's, and can still grow."""
    cache = PromptCache(MB)
    cache.keep(CHAT, state(CHAT))
    assert cache.nbytes == 2 * 100 * 4
    caches, _ = fetch(cache, [*CHAT, 1])
    assert caches is not None
    keys = mx.full((1, 1, 1, 1), 7.0)
    caches[0].update_and_fetch(keys, keys)
    assert tokens_in(caches) == [*CHAT, 7]


def test_the_number_of_states_is_bounded() -> None:
    """Thousands of small prompts leave at most the maximum of states, so lookups stay fast."""
    cache = PromptCache(MB)
    for number in range(MAX_STATES + 20):
        cache.keep([number, *range(500, 520)], state([number, *range(500, 520)]))
    assert len(cache) == MAX_STATES
    assert fetch(cache, [0, *range(500, 520), 1])[1] == 0
    assert fetch(cache, [MAX_STATES + 19, *range(500, 520), 1])[1] == 21


def test_a_size_of_zero_keeps_nothing() -> None:
    """With a size of zero, no state is kept."""
    cache = PromptCache(0)
    cache.keep(CHAT, state(CHAT))
    assert (len(cache), cache.nbytes) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 600), st.booleans()), max_size=40), st.integers(0, 20_000))
@settings(max_examples=60, deadline=None)
def test_bytes_stay_within_the_bound_and_are_counted_right(
    operations: list[tuple[int, int, bool]], max_bytes: int
) -> None:
    """After every operation: kept bytes are those of the entries, and never above the bound; what is found is right."""
    cache = PromptCache(max_bytes)
    for chat, length, is_fetch in operations:
        tokens = [1000 * chat + i for i in range(length)]
        if is_fetch:
            caches, known = fetch(cache, tokens)
            assert known == (0 if caches is None else len(tokens_in(caches)))
            assert caches is None or tokens_in(caches) == tokens[:known]
            assert known < length
        else:
            cache.keep(tokens, state(tokens))
        assert cache.nbytes <= max_bytes
        assert cache.nbytes == sum(c.nbytes for entry in cache._entries.values() for c in entry.caches)
    cache.trim_to(100)
    assert cache.nbytes <= 100
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)


def test_fetching_an_evicted_state_gives_none() -> None:
    """A plan may name a state that has been evicted since; fetching it gives None."""
    cache = PromptCache(MB)
    cache.keep(CHAT, state(CHAT))
    (kept,) = cache.states
    cache.clear()
    assert cache.fetch(kept.key, 50) is None
