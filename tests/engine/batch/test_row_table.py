"""RowTable on real caches: slots are taken, retired and compacted, and each row keeps its own state."""

from __future__ import annotations

from typing import cast

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import KVCache

from periscope.core import GenerationParams
from periscope.engine.batch.grouping import LONG_TOKENS
from periscope.engine.batch.prompt_cache import LayerCaches
from periscope.engine.batch.row_table import COMPACT_STEPS, RowTable
from periscope.engine.batch.rows import Row
from periscope.engine.batch.sampling import GREEDY

NUM_LAYERS = 3
PARAMS = GenerationParams(max_tokens=100)


class Kept:
    """The states that a table has handed over."""

    def __init__(self) -> None:
        self.states: list[tuple[list[int], LayerCaches]] = []

    def __call__(self, tokens: list[int], caches: LayerCaches, freed_bytes: int) -> None:  # noqa: ARG002
        self.states.append((tokens, caches))


def row(number: int, length: int) -> tuple[Row, LayerCaches]:
    """A row with tokens of its own, and caches whose keys are all of them but the last."""
    tokens = [1000 * number + i for i in range(length)]
    caches = []
    for _ in range(NUM_LAYERS):
        cache = KVCache()
        keys = mx.array(tokens[:-1], dtype=mx.float32).reshape(1, 1, -1, 1)
        cache.update_and_fetch(keys, keys)
        caches.append(cache)
    return Row(number, np.asarray(tokens), tokens, PARAMS, GREEDY), caches


def keys_of(caches: LayerCaches) -> list[int]:
    (keys,) = {tuple(cache.keys_and_values()[0].flatten().tolist()) for cache in caches}
    return [int(key) for key in keys]


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def table(kept: Kept) -> RowTable:
    return RowTable(kept, keeps_states=True)


def assert_whole(table: RowTable) -> None:
    """Check that each row's newest token is in its slot, and that its caches hold the tokens before it."""
    assert table.newest is not None
    newest = cast("list[int]", table.newest.tolist())
    assert len(newest) == len(table.slots)
    for each in table.rows:
        assert newest[table.slots.index(each)] == each.tokens[-1]
        caches, num_computed = table.extract(each)
        assert keys_of(caches) == each.tokens[:num_computed]


def test_each_row_has_its_own_slot(table: RowTable) -> None:
    """A single row, then two more, then one more: each keeps its tokens and caches."""
    table.add([row(1, 20)])
    assert_whole(table)
    table.add([row(2, 50), row(3, 5)])
    assert_whole(table)
    table.add([row(4, 300)])
    assert_whole(table)
    assert [each.id for each in table.rows] == [1, 2, 3, 4]


def test_a_retired_row_leaves_its_state_and_its_slot_to_the_next(table: RowTable, kept: Kept) -> None:
    """Its tokens and caches are handed over once, and a new row takes its slot without the others being copied."""
    table.add([row(1, 20), row(2, 30), row(3, 40)])
    second = table.rows[1]
    table.retire([second])
    assert [each.id for each in table.rows] == [1, 3]
    ((tokens, caches),) = kept.states
    assert tokens == keys_of(caches) == second.tokens[:-1]
    table.add([row(4, 25)])
    assert [each.id for each in table.slots] == [1, 4, 3]
    assert_whole(table)


def test_rows_without_a_token_in_their_caches_can_be_given_up(table: RowTable) -> None:
    """Two prompts of one token join and one is given up before a forward pass: the other's caches are still empty."""
    first, second = ((Row(i, np.asarray([i]), [i], PARAMS, GREEDY), [KVCache() for _ in "ab"]) for i in (1, 2))
    table.add([first, second])
    table.preempt([1])
    caches, num_computed = table.extract(second[0])
    assert (num_computed, [cache.empty() for cache in caches]) == (0, [True, True])


def test_retired_slots_are_compacted_once_they_are_many_or_old(table: RowTable) -> None:
    """A few retired slots are kept for some steps; many are compacted at once."""
    table.add([row(number, 10 + number) for number in range(1, 11)])
    table.retire([table.rows[0]])
    for _ in range(COMPACT_STEPS - 1):
        table.compact_if_worth_it()
        assert len(table.slots) == 10
    table.compact_if_worth_it()
    assert len(table.slots) == 9
    table.retire(table.rows[:5])
    table.compact_if_worth_it()
    assert len(table.slots) == 4
    assert_whole(table)


def test_a_long_row_is_exported_layer_by_layer(table: RowTable, kept: Kept) -> None:
    """Its slot is neither compacted nor replaced before all of its state is copied."""
    table.add([row(1, LONG_TOKENS + 50), row(2, 30)])
    long = table.rows[0]
    table.retire([long])
    assert [list(tokens) for tokens in table.exports] == [long.tokens[:-1]]
    for _ in range(NUM_LAYERS):
        assert not kept.states
        table.compact_if_worth_it()
        assert len(table.slots) == 2
        table.export_layer()
    ((tokens, caches),) = kept.states
    assert tokens == keys_of(caches) == long.tokens[:-1]
    assert not table.exports
    assert_whole(table)


def test_a_preempted_row_leaves_nothing_behind(table: RowTable, kept: Kept) -> None:
    """A preempted row is returned without its state being kept, and the others are compacted at once."""
    table.add([row(1, 20), row(2, 30), row(3, 40)])
    table.retire([table.rows[0]])
    kept.states.clear()
    (preempted,) = table.preempt([2])
    assert (preempted.id, preempted.is_retired) == (2, False)
    assert [each.id for each in table.slots] == [3]
    assert not kept.states
    assert_whole(table)
    table.preempt([3])
    assert (len(table), table.nbytes, table.newest) == (0, 0, None)


def test_growth_is_reported_before_it_happens(table: RowTable) -> None:
    """Growth is 0 while there is room, and a whole block for every row in the step that needs it."""
    table.add([row(1, 256), row(2, 30)])
    before = table.nbytes  # two blocks a row: a row is given room for the block that comes
    assert table.growth_bytes(1) == 0
    assert table.growth_bytes(300) == before
