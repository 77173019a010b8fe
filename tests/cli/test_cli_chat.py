"""`periscope chat`: what is typed, what stays in the conversation, and a real one with the running server."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from periscope.cli.app import app
from periscope.cli.chat_input import Command, Said, path_of, read_input
from periscope.cli.chat_session import HELP, ChatSession
from periscope.core import Finished, FinishReason, Message, OutputEvent, Role, TextDelta, Usage
from periscope.errors import InvalidRequest, ServerBusy
from tests.cli.process import ServeProcess

cli = CliRunner()
END = Finished(FinishReason.STOP, Usage(1, 1))


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("Hello there", Said("Hello there", ())),
        ("/image a b.png", Command("image", "a b.png")),
        ("/help", Command("help", "")),
        ("/pics/a.png", Said("", (Path("/pics/a.png"),))),
        (r"/pics/a\ b.png", Said("", (Path("/pics/a b.png"),))),
        ("What is in '/pics/a b.png' ?", Said("What is in ?", (Path("/pics/a b.png"),))),
        ("file:///pics/a%20b.png what is it", Said("what is it", (Path("/pics/a b.png"),))),
        ("compare /pics/a.png /pics/b.jpg", Said("compare", (Path("/pics/a.png"), Path("/pics/b.jpg")))),
        ("what is in pics/a.png?", Said("what is in ?", (Path("pics/a.png"),))),
        ("a.png, b.png and v1.2 of example.com/a.png", Said(", b.png and v1.2 of example.com/a.png", (Path("a.png"),))),
        ("read /etc/hosts and /gone/a.png", Said("read /etc/hosts and /gone/a.png", ())),
        ("either/or  and 1/2", Said("either/or  and 1/2", ())),
    ],
)
def test_a_line_is_read_as_it_is_meant(line: str, meant: object) -> None:
    """Commands, and pictures however a terminal pastes their paths; other text stays as it was typed."""
    there = {"a.png", "pics/a.png", "/pics/a.png", "/pics/a b.png", "/pics/b.jpg", "/etc/hosts"}
    assert read_input(line, is_file=lambda path: str(path) in there) == meant


def test_a_path_may_begin_at_home() -> None:
    """As the shell would read it."""
    assert path_of("~/a.png") == Path.home() / "a.png"


class Model:
    """Says what the test wants, and keeps what it was asked."""

    def __init__(self, *answers: list[OutputEvent | Exception]) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str | None, tuple[Message, ...]]] = []

    async def __call__(self, model: str | None, messages: tuple[Message, ...]) -> AsyncGenerator[OutputEvent, None]:
        self.asked.append((model, messages))
        for event in self._answers.pop(0):
            if isinstance(event, Exception):
                raise event
            yield event


def session_with(model: Model, runner: asyncio.Runner) -> tuple[ChatSession, list[str]]:
    told: list[str] = []
    return ChatSession(model, runner.run, told.append, system="Be brief."), told


def test_a_conversation_grows_and_is_begun_anew(tmp_path: Path) -> None:
    """Each question comes with all before it; a picture belongs to the next message alone; /clear forgets."""
    picture = tmp_path / "a.png"
    picture.write_bytes(b"not looked at")
    model = Model([TextDelta("Red."), END], [TextDelta("Round."), END], [TextDelta("Hi."), END])
    with asyncio.Runner() as runner:
        session, told = session_with(model, runner)
        assert session.take(f"/image {picture}")
        assert session.take("Which colour?")
        assert session.take("/model other")
        assert session.take("Which shape?")
        assert session.take("/clear")
        assert session.take("Hello")
        assert not session.take("/exit")
    assert [name for name, _ in model.asked] == [None, "other", "other"]
    first, second, third = (messages for _, messages in model.asked)
    assert [message.role for message in second] == [Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.USER]
    assert [len(message.images) for message in second] == [0, 1, 0, 0]
    assert (len(first), len(third)) == (2, 2)
    assert told == ["Attached a.png.", "Model: other.", "A new conversation begins."]


def test_an_error_is_told_and_forgotten(tmp_path: Path) -> None:
    """A question without an answer is not part of the conversation, and its picture waits for the next try."""
    picture = tmp_path / "a.png"
    picture.write_bytes(b"not looked at")
    model = Model([ServerBusy("Too many requests.")], [TextDelta("Red."), END])
    with asyncio.Runner() as runner:
        session, told = session_with(model, runner)
        session.take(f"Which colour? {picture}")
        session.take("Which colour now?")
        session.take("/image nothing.png")
    assert told == ["Attached a.png.", "Too many requests.", "There is no file nothing.png."]
    assert [len(message.images) for message in model.asked[1][1]] == [0, 1]


def test_a_picture_that_is_refused_is_not_sent_again(tmp_path: Path) -> None:
    """Others of the question are, and each further question would have failed like the first."""
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    for picture in (good, bad):
        picture.write_bytes(b"not looked at")
    model = Model([InvalidRequest(f"The image in `{bad}` is empty.")], [TextDelta("Red."), END])
    with asyncio.Runner() as runner:
        session, told = session_with(model, runner)
        session.take(f"Which colour? {bad} {good}")
        session.take("Which colour now?")
    assert told[2:] == [f"The image in `{bad}` is empty. It is not attached any more."]
    assert [image.param for image in model.asked[1][1][-1].images] == [str(good)]


def test_a_line_that_is_not_utf_8_is_told_and_the_conversation_goes_on() -> None:
    """Python reads such a byte as half a character, which no request can hold."""
    model = Model([TextDelta("Hi."), END])
    with asyncio.Runner() as runner:
        session, told = session_with(model, runner)
        assert session.take("h\udce9llo")
        assert session.take("Hello")
    assert (told, len(model.asked)) == (["The question is not in UTF-8."], 1)


def test_a_command_that_there_is_not_is_named() -> None:
    """Before the list of those that there are; /help is the list alone."""
    with asyncio.Runner() as runner:
        session, told = session_with(Model(), runner)
        assert all(session.take(line) for line in ("/nonsense", "/image", "/help"))
    assert told == [
        f"There is no command /nonsense.\n{HELP}",
        "There is no file named: /image FILE attaches a picture.",
        HELP,
    ]


@pytest.fixture
def heeds_ctrl_c() -> Iterator[None]:
    """SIGINT interrupts, also where the tests were started in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_stops_the_answer_and_not_the_conversation() -> None:
    """What was said until then is kept, so that the next question can refer to it."""

    class Endless(Model):
        async def __call__(self, model: str | None, messages: tuple[Message, ...]) -> AsyncGenerator[OutputEvent, None]:
            self.asked.append((model, messages))
            yield TextDelta("Once upon")
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()

    model = Endless()
    with asyncio.Runner() as runner:
        session, told = session_with(model, runner)
        assert session.take("Tell me a story.")
    assert told == ["Stopped."]
    assert [part.text for message in session.messages for part in message.parts if hasattr(part, "text")] == [
        "Tell me a story.",
        "Once upon",
    ]


def test_lines_from_a_file_are_answered_one_by_one(running: ServeProcess, short_config: Path) -> None:
    """Piped into the command, with a line of JSON for each answer: the second question has the first before it."""
    common = ["chat", "--url", running.url, "--config", str(short_config), "--json"]
    ended = cli.invoke(app, common, input="Hi\nAnd now?\n/exit\nnot read\n")
    assert ended.exit_code == 0, ended.output
    first, second = (json.loads(line) for line in ended.stdout.splitlines())
    assert (first["question"], first["finish_reason"]) == ("Hi", "length")
    assert second["usage"]["num_prompt_tokens"] > first["usage"]["num_prompt_tokens"] + len(first["answer"].split())
