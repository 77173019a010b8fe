"""Two thousand requests over parts that fail at random: each ends once, rightly or with an error, and nothing stays."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import mlx.core as mx

from periscope.captions.cache import CaptionCache
from periscope.core import (
    Echo,
    Finished,
    Footprint,
    GenerationParams,
    GenerationRequest,
    ImagePart,
    Message,
    ModelState,
    OutputSpec,
    ResponseFormat,
    Role,
    TextPart,
    TextPrompt,
    Tool,
    ToolChoice,
    ToolChoiceMode,
    VisionMode,
    Waiting,
    new_id,
)
from periscope.errors import ModelUnavailable, PeriscopeError, RequestCancelled, RequestNotFound
from periscope.events import EventBus
from periscope.hub import Downloads
from periscope.pool.contracts import LoadProgress, ModelSpec, PoolLimits
from periscope.pool.pool import ModelPool
from periscope.serving.control import ControlService
from periscope.serving.generation import LocalGenerator
from periscope.serving.models import ModelNames, ServedModel
from periscope.serving.requests import LiveRequests
from periscope.serving.service import ChatService
from periscope.status import ServerIdentity
from periscope.vision.proxy import VisionProxy
from periscope.vision.settings import ProxySettings
from tests.chaos.faults import CAPTIONER_FAULTS, ChaoticCaptioner, Dice, load_engine
from tests.e2e.drawing import circle, data_url, square
from tests.pool.fakes import FakeMemory, reload_nothing

SEED = 20_000
NUM_REQUESTS = 2_000
NUM_AT_ONCE = 24
#: A second of the pool takes so much less here: back-offs of minutes must not make the run one of hours.
HASTE = 500.0
#: Enough for a few steps in company; each one more costs the run seconds.
GREEDY = GenerationParams(temperature=0.0, max_tokens=5)
#: As long as `{"a": 0}` and its end take.
WHOLE = replace(GREEDY, max_tokens=9)
SCHEMA = {"type": "object", "properties": {"a": {"enum": [0, 1]}}, "required": ["a"], "additionalProperties": False}
TOOL = Tool("look", "Looks.", SCHEMA)

#: What a request says to its client: text, reasoning and calls by choice, and why each ended.
Answer: TypeAlias = tuple[object, ...]


def says(text: str, *images: str) -> tuple[Message, ...]:
    parts = tuple(ImagePart(url, f"messages[0].content[{at}]") for at, url in enumerate(images))
    return (Message(Role.USER, (*parts, TextPart(text))),)


def request(messages: tuple[Message, ...], **changes: object) -> GenerationRequest:
    return replace(GenerationRequest(new_id("chatcmpl-"), "chaos", messages, GREEDY), **changes)  # type: ignore[arg-type]


def kinds() -> dict[str, Callable[[], GenerationRequest]]:
    """One of each way through the service."""
    long = " ".join(f"word{n}" for n in range(40))
    forced = ToolChoice(ToolChoiceMode.REQUIRED)
    scored = replace(GREEDY, logprobs=True, prompt_logprobs=True)
    seeded = replace(GREEDY, temperature=1.0, seed=4, frequency_penalty=0.4)
    return {
        "short": lambda: request(says("Hello.")),
        "long": lambda: request(says(long)),
        "sampled": lambda: request(says("Again."), params=seeded),
        "choices": lambda: request(says("Two."), num_choices=2),
        "schema": lambda: request(
            says("JSON."), output=OutputSpec(response_format=ResponseFormat(SCHEMA)), params=WHOLE
        ),
        "call": lambda: request(says("Look."), output=OutputSpec((TOOL,), forced)),
        "begun": lambda: request((*says("Go on."), Message(Role.ASSISTANT, (TextPart("As I"),))), continues=True),
        "texts": lambda: request((), prompts=(TextPrompt(long), TextPrompt("Two.")), echo=Echo.PROMPT, params=scored),
        "picture": lambda: request(says("What?", data_url(circle("red", 32)))),
        "pictures": lambda: request(says("Which?", data_url(square("blue", 48)), data_url(circle("green", 40)))),
    }


class HastyTimers:
    """The event loop's clock, many times as fast."""

    def now(self) -> float:
        return asyncio.get_running_loop().time() * HASTE

    def call_at(self, when: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_at(when / HASTE, call)


class Rooms:
    """Owns a service over one text model and a captioner, all of whose parts fail as the dice fall."""

    def __init__(self, folder: Path, dice: Dice) -> None:
        self.captioner = ChaoticCaptioner(dice)
        self.dice = dice

        async def load(_progress: LoadProgress) -> LocalGenerator:
            return await load_engine(folder, dice)

        async def measure() -> Footprint:
            if dice.falls("measure", 0.05):
                raise OSError("the disk is gone")
            return Footprint(1000, 0)

        bus = EventBus()
        limits = PoolLimits(budget_bytes=10**9, max_waiting=NUM_AT_ONCE, wait_timeout_s=10**6)
        spec = ModelSpec("chaos", measure, load, max_running=8)
        self.pool = ModelPool([spec], bus, limits, memory=FakeMemory(), timers=HastyTimers())
        model = ServedModel(
            "chaos", (), 0, None, VisionMode.PROXY, GREEDY, captioner=self.captioner, proxy=ProxySettings()
        )
        self.names, self.requests, self.captions = ModelNames([model]), LiveRequests(bus.publish), CaptionCache()
        self.service = ChatService(self.names, self.pool, VisionProxy(self.captions), self.requests)
        self.control = ControlService(
            self.service,
            self.pool,
            self.names,
            self.requests,
            bus,
            captions=self.captions,
            identity=ServerIdentity("1"),
            read_memory=lambda: (1, 2, 3),
            reload=reload_nothing,
            downloads=Downloads(bus.publish),
            sources=lambda asked, _: [(asked, None)],
        )


@dataclass
class Ends:
    """How every request ended; `answers` and `errors` by kind of request."""

    answers: list[tuple[str, Answer]] = field(default_factory=list)
    errors: list[tuple[str, PeriscopeError]] = field(default_factory=list)
    num_left: int = 0

    @property
    def num_ended(self) -> int:
        return len(self.answers) + len(self.errors) + self.num_left


async def answer_to(service: ChatService, asked: GenerationRequest, *, leave_after: int | None = None) -> Answer | None:
    """What the client gets; None when it leaves after so many events."""
    heard: dict[tuple[str, int, int], str] = {}
    num_events = 0
    async with aclosing(service.stream(asked)) as events:
        async for event in events:
            if num_events == leave_after:
                return None
            num_events += 1
            if isinstance(event, Finished):
                rest = [left async for left in events]
                assert rest == [], "something came after the end"
                return (*sorted(heard.items()), event.finish_reasons)
            if not isinstance(event, Waiting):
                note(heard, event)
    raise AssertionError("a stream ended without an end")


def note(heard: dict[tuple[str, int, int], str], event: object) -> None:
    """Deltas of one kind are joined; ids of calls are drawn anew each time."""
    kind, choice, index = type(event).__name__, getattr(event, "choice", 0), getattr(event, "index", 0)
    said = [str(getattr(event, name)) for name in ("name", "text", "arguments") if getattr(event, name, None)]
    heard[(kind, choice, index)] = heard.get((kind, choice, index), "") + "".join(said)


async def right_answers(rooms: Rooms) -> dict[str, set[Answer]]:
    """With no fault; and, where pictures are described, with each of the captioner's that becomes a marker."""
    right: dict[str, set[Answer]] = {}
    for fault in (None, *CAPTIONER_FAULTS):
        rooms.captioner.forced = fault
        rooms.captions.flush()
        for kind, make in kinds().items():
            answer = await answer_to(rooms.service, make())
            assert answer is not None
            right.setdefault(kind, set()).add(answer)
    rooms.captioner.forced = None
    return right


async def one_request(rooms: Rooms, number: int, ends: Ends) -> None:
    """Chosen, and ended by its client or an operator now and then, by the number alone."""
    dice = random.Random(SEED + number)
    kind, make = dice.choice(list(kinds().items()))
    leave_after = dice.randrange(8) if dice.random() < 0.1 else None
    asked = make()
    if dice.random() < 0.05:
        rooms.captions.flush()
    if dice.random() < 0.04:
        with suppress(PeriscopeError):
            await rooms.control.unload("chaos", wait=False)
    try:
        answer = await ended(rooms, asked, leave_after, cancels=dice.random() < 0.05)
    except PeriscopeError as error:
        ends.errors.append((kind, error))
    else:
        if answer is None:
            ends.num_left += 1
        else:
            ends.answers.append((kind, answer))


async def ended(rooms: Rooms, asked: GenerationRequest, leave_after: int | None, *, cancels: bool) -> Answer | None:
    """In a task of its own, as a server has it."""
    answering = asyncio.create_task(answer_to(rooms.service, asked, leave_after=leave_after))
    if cancels:
        for _ in range(20):
            await asyncio.sleep(0)
        with suppress(RequestNotFound):
            rooms.control.cancel(asked.id)
    await asyncio.wait({answering})
    if answering.cancelled():
        raise RequestCancelled("The request was cancelled.")
    return answering.result()


async def all_requests(rooms: Rooms) -> Ends:
    ends, places = Ends(), asyncio.Semaphore(NUM_AT_ONCE)

    async def placed(number: int) -> None:
        async with places:
            await one_request(rooms, number, ends)

    async with asyncio.TaskGroup() as group:
        for number in range(NUM_REQUESTS):
            group.create_task(placed(number))
    return ends


async def unloaded(rooms: Rooms) -> None:
    """The model is not in memory, and no attempt to bring it back is left."""
    rooms.dice.is_on = False
    await rooms.control.unload("chaos", wait=True)
    assert rooms.pool.status("chaos").state in {ModelState.UNLOADED, ModelState.FAILED}


def test_every_request_ends_once_and_nothing_is_left(tiny_text_model: Path) -> None:
    """Faults in load, prefill, decode, cache, grammar and captioner, clients that leave, commands in between."""

    async def run() -> tuple[Rooms, Ends, dict[str, set[Answer]]]:
        rooms = Rooms(tiny_text_model, Dice(SEED))
        right = await right_answers(rooms)
        await unloaded(rooms)
        rooms.captions.flush()
        start_bytes = mx.get_active_memory()
        rooms.dice.is_on = True
        ends = await all_requests(rooms)
        view = rooms.pool.status("chaos")
        assert (view.num_running, view.num_waiting, rooms.requests.all()) == (0, 0, ())
        engine = rooms.pool.loaded("chaos", LocalGenerator)
        while engine is not None and engine.is_alive and engine.num_rows:
            await asyncio.sleep(0)
        await unloaded(rooms)
        gc.collect()
        assert mx.get_active_memory() <= start_bytes + 2**16
        again = await answer_to(rooms.service, kinds()["short"]())
        assert again in right["short"]
        await rooms.pool.close()
        return rooms, ends, right

    rooms, ends, right = asyncio.run(run())
    assert ends.num_ended == NUM_REQUESTS
    wrong = Counter(kind for kind, answer in ends.answers if answer not in right[kind])
    assert not wrong
    told = Counter(type(error).__name__ for _, error in ends.errors)
    print(f"\n{len(ends.answers)} answered, {ends.num_left} left")  # noqa: T201 - what a person wants to see
    print(f"errors {dict(told)}, faults {dict(rooms.dice.fallen)}")  # noqa: T201
    assert len(ends.answers) > NUM_REQUESTS / 4
    assert all(error.message for _, error in ends.errors)
    expected = {"load", "late load", "prefill", "decode", "keep", "fetch", "stream", "grammar", "compile"}
    expected |= {f"captioner {kind}" for kind in ("busy", *CAPTIONER_FAULTS)}
    assert expected <= set(rooms.dice.fallen)
    assert ModelUnavailable.__name__ in told
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("periscope-chaos")]
