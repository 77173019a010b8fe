"""One conversation at a terminal: what was said so far, what is attached to the next message, and its commands."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from periscope.cli.ask import Answer, facts_of, to_messages
from periscope.cli.chat_input import Command, Said, path_of, read_input
from periscope.cli.exits import CommandFailed
from periscope.cli.images import image_parts
from periscope.core import ImagePart, JSONObject, Message, OutputEvent, Role, TextPart
from periscope.errors import PeriscopeError

if TYPE_CHECKING:
    from collections.abc import Coroutine

HELP = """\
/image FILE    attach a picture to the next message; a pasted or dropped path does the same
/model NAME    talk to another model; without a name, say which one it is
/system TEXT   set the system prompt; without a text, drop it
/clear         begin a new conversation
/exit          end, as Ctrl-D does; Ctrl-C stops an answer"""


class Answering(Protocol):
    """Answers a conversation: the running server, or a model of this process."""

    def __call__(self, model: str | None, messages: tuple[Message, ...]) -> AsyncGenerator[OutputEvent, None]:
        """The events of the answer, `Finished` last."""
        ...


class ChatSession:
    """Owns the conversation. One thread; an answer runs inside `take`.

    Args:
        run: runs a coroutine to its end; raises KeyboardInterrupt when Ctrl-C has cancelled it.
        tell: takes a line for the person.
        on_answer: takes each answer's facts; None = the text is shown as it comes instead.
    """

    def __init__(
        self,
        answering: Answering,
        run: Callable[[Coroutine[object, object, None]], None],
        tell: Callable[[str], None],
        *,
        model: str | None = None,
        system: str | None = None,
        on_answer: Callable[[JSONObject], None] | None = None,
    ) -> None:
        self.messages: list[Message] = []
        self._answering = answering
        self._run = run
        self._tell = tell
        self._on_answer = on_answer
        self._model = model
        self._system = system
        self._attached: list[ImagePart] = []

    def take(self, line: str) -> bool:
        """One line of input; whether the conversation goes on."""
        try:
            match read_input(line):
                case Command("exit" | "quit" | "bye"):
                    return False
                case Command(name, argument):
                    self._obey(name, argument)
                case Said(text, files):
                    self._attach(files)
                    if text:
                        self._ask(text)
        except (CommandFailed, PeriscopeError) as error:
            self._tell(error.message)
        return True

    def _obey(self, name: str, argument: str) -> None:
        match name:
            case "image" if argument:
                self._attach((path_of(argument),))
            case "model":
                self._model = argument or self._model
                self._tell(f"Model: {self._model or 'the default one'}.")
            case "system":
                self._system = argument or None
                self._tell("The system prompt is set." if argument else "There is no system prompt now.")
            case "clear":
                self.messages.clear()
                self._attached.clear()
                self._tell("A new conversation begins.")
            case "help":
                self._tell(HELP)
            case "image":
                self._tell("There is no file named: /image FILE attaches a picture.")
            case _:
                self._tell(f"There is no command /{name}.\n{HELP}")

    def _attach(self, files: tuple[Path, ...]) -> None:
        for file, part in zip(files, image_parts(files), strict=True):
            self._attached.append(part)
            self._tell(f"Attached {file.name}.")

    def _ask(self, text: str) -> None:
        """What was asked stays in the conversation only with an answer, or with what came of it before Ctrl-C."""
        asked = to_messages(text, self._attached, None)
        system = (Message(Role.SYSTEM, (TextPart(self._system),)),) if self._system else ()
        answer = Answer()
        events = self._answering(self._model, (*system, *self.messages, *asked))
        try:
            self._run(answer.take(events, is_shown=self._on_answer is None))
        except KeyboardInterrupt:
            self._tell("Stopped.")
        except (CommandFailed, PeriscopeError) as error:
            left = [part for part in self._attached if part.param not in error.message]
            if len(left) == len(self._attached):
                raise
            self._attached = left  # or each further question would fail like this one
            raise CommandFailed(f"{error.message} It is not attached any more.") from None
        if answer.text or answer.finished:
            self.messages += [*asked, Message(Role.ASSISTANT, (TextPart(answer.text),))]
            self._attached.clear()
            if self._on_answer is not None:
                self._on_answer({"question": text, **facts_of(answer)})
