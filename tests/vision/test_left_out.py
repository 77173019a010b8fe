"""LeftOutImages: the same choice for a conversation in every turn, and never more to make than allowed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from periscope.captions.kept import KeptCaptions, num_bytes_of
from periscope.core import Message
from periscope.vision.images.limits import ImageLimits
from periscope.vision.left_out import LeftOutImages
from periscope.vision.settings import ProxySettings
from tests.vision.chats import BLUE, GREEN, RED, SETTINGS, block, proxy, texts
from tests.vision.fakes import FakeCaptioner, conversation, png, run


def test_all_but_the_newest_new_images_are_left_out() -> None:
    """What is known does not count, and the same image twice counts once."""
    left_out = LeftOutImages(KeptCaptions())
    assert left_out.choose(["a", "b", "c", "d"], {"a", "b", "d"}, 2) == {0}
    assert left_out.choose(["a", "b", "b", "d"], {"a", "b", "d"}, 2) == {0}
    assert left_out.choose(["x", "y", "z"], (), 1) == frozenset()


def test_another_conversation_is_decided_about_by_itself() -> None:
    """An image that was left out somewhere is described where it is among the newest."""
    left_out = LeftOutImages(KeptCaptions())
    assert left_out.choose(["a", "b"], {"a", "b"}, 1) == {0}
    assert left_out.choose(["a"], {"a"}, 1) == frozenset()
    assert left_out.choose(["b", "a"], {"a"}, 1) == frozenset()
    assert left_out.choose(["a", "b", "c"], {"a", "c"}, 1) == {0}


def test_only_so_many_conversations_are_remembered() -> None:
    """Decisions share the bound of the captions: the one that was not used for longest is forgotten, and made anew."""
    left_out = LeftOutImages(KeptCaptions(max_bytes=2 * (num_bytes_of(len("left-out/") + 64, 1))))
    for name in ("a", "b", "a", "c"):
        left_out.choose([f"{name}1", f"{name}2"], {f"{name}1", f"{name}2"}, 1)
    assert left_out.choose(["a1", "a2"], {"a1"}, 1) == {0}
    assert left_out.choose(["b1", "b2"], {"b1"}, 1) == frozenset()


def test_a_restart_changes_no_decision() -> None:
    """What the captions are kept in keeps the decisions, too: the next process leaves out the same images."""
    kept = KeptCaptions()
    assert LeftOutImages(kept).choose(["a", "b", "c"], {"a", "b", "c"}, 2) == {0}
    assert LeftOutImages(kept).choose(["a", "b", "c", "d"], {"a", "d"}, 2) == {0}
    kept.clear()
    assert LeftOutImages(kept).choose(["a", "b", "c", "d"], {"a", "d"}, 2) == frozenset()


@given(st.lists(st.lists(st.sampled_from("abcdefghij"), max_size=4), max_size=8), st.integers(1, 3))
def test_a_conversation_that_grows_never_changes_what_was_left_out(turns: list[list[str]], max_made: int) -> None:
    """Of the images of earlier turns the same ones are left out in every turn, and no turn makes more than it may."""
    left_out, known, keys = LeftOutImages(KeptCaptions()), set[str](), list[str]()
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


def test_only_the_newest_images_are_described() -> None:
    """Beyond the limit the older ones say so, and the captioner never sees them."""

    async def test() -> None:
        captioner = FakeCaptioner()
        messages = conversation([png("black")], [GREEN, BLUE], [RED])
        settings = ProxySettings(limits=ImageLimits(max_images=2))
        rewritten = await proxy().rewrite(messages, captioner, settings)
        reason = "only the newest 2 images that are new in a request are described"
        assert texts(rewritten) == [
            [f"[Image 1, 4x3 px, could not be read: {reason}. Do not guess what it shows.]"],
            [
                f"[Image 2, 4x3 px, could not be read: {reason}. Do not guess what it shows.]",
                block(3, "640x480", "Colour (0, 0, 255), try 1."),
            ],
            [block(4, "4x3", "Colour (255, 0, 0), try 1.")],
        ]
        assert (rewritten.vision.num_images, rewritten.vision.num_failed) == (4, 2)

    run(test())


def picture(number: int) -> bytes:
    """Another one for each number."""
    return png((number, 255 - number, 7))


def test_an_agent_with_a_new_screenshot_in_each_of_20_turns_keeps_its_prefix() -> None:
    """Known captions stand however many there are: each turn begins with the last one, byte by byte."""

    async def test() -> None:
        vision, captioner, before = proxy(), FakeCaptioner(), tuple[Message, ...]()
        for num_turns in range(1, 21):
            turns: list[list[str | bytes]] = [["Look.", picture(number)] for number in range(num_turns)]
            rewritten = await vision.rewrite(conversation(*turns), captioner, SETTINGS)
            assert rewritten.messages[:-1] == before
            assert (rewritten.vision.num_failed, rewritten.vision.num_cache_hits) == (0, num_turns - 1)
            before = rewritten.messages
        assert [len(request.images) for request in captioner.requests] == [1] * 20

    run(test())


def test_what_a_first_request_leaves_out_stays_left_out_in_its_conversation() -> None:
    """Twelve pictures at once: the newest eight are described, and no later turn, however short, changes a byte."""

    async def test() -> None:
        vision, captioner = proxy(), FakeCaptioner()
        turns: list[list[str | bytes]] = [["Look.", *(picture(number) for number in range(12))]]
        first = await vision.rewrite(conversation(*turns), captioner, SETTINGS)
        assert (first.vision.num_images, first.vision.num_failed) == (12, 4)
        before = first.messages
        for number in (20, 21, 2):  # the last one is a picture that was left out, sent anew
            turns.append(["And this?", picture(number)])
            rewritten = await vision.rewrite(conversation(*turns), captioner, SETTINGS)
            assert rewritten.messages[:-1] == before
            assert rewritten.vision.num_failed == 4
            before = rewritten.messages
        assert [len(request.images) for request in captioner.requests] == [8, 1, 1, 1]
        alone = await vision.rewrite(conversation([picture(0)]), captioner, SETTINGS)
        assert alone.vision.num_failed == 0

    run(test())
