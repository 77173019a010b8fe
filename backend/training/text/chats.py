"""Generator of the chats that train and test the demo text model; deterministic by seed.

``sample_chat`` draws one conversation of 1-6 turns: images described in caption blocks, questions about them,
small talk, tool calls. Every assistant message carries a label, the category the evaluation counts it under.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from training.captioner.grammar import COLOURS, KINDS
from training.text import answers, checks
from training.text.families import FAMILIES
from training.text.intents import FIRST_INTENTS, INTENTS
from training.text.phrases import choose, vary
from training.text.questions import Asked, ask
from training.text.scenes import ImageBlock, Scene, sample_scene, sample_size
from training.text.smalltalk import talk
from training.text.tools import ToolRequest, made_up_request, request, tool_result
from training.text.words import CAPTIONERS, REASONS, SYSTEMS, name, odd_caption, sentence, words

Message = dict[str, Any]
SCREEN_TOOLS = (
    "take_screenshot",
    "screenshot",
    "open_image",
    "view_image",
    "camera",
    "take_photo",
    "capture_screen",
    "load_picture",
)
SCREEN_ASKS = (
    "take a screenshot",
    "take a photo",
    "show me the screen",
    "what is on the screen",
    "make a screenshot",
    "use the camera",
)
AGAIN = ("and in {0}", "what about {0}", "and {0}", "how about {0}", "the same for {0}", "and for {0}")
PLAIN_SHARES = (58, 18, 4, 18, 2, 0)
REPEATABLE = {"describe", "background", "count", "number", "kind", "colours"}


@dataclass(slots=True)
class Chat:
    """One conversation; ``labels`` has one category for each assistant message."""

    messages: list[Message] = field(default_factory=list)
    tools: list[Message] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def say(self, question: str, answer: str, label: str) -> None:
        """Append a user message and its answer."""
        self.messages.append({"role": "user", "content": question})
        self.reply(answer, label)

    def reply(self, answer: str, label: str) -> None:
        """Append an assistant message."""
        self.messages.append({"role": "assistant", "content": answer})
        self.labels.append(label)

    def call(self, tool: str, arguments: Message, label: str = "tool call") -> None:
        """Append an assistant message that calls a tool."""
        call = {"type": "function", "function": {"name": tool, "arguments": arguments}}
        self.messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        self.labels.append(label)


#: The properties of a thing, and how one is asked for after the thing was spoken of.
_PROPERTIES = {
    "colour": "(and |)(its (colour|color)|what is its (colour|color)|(what|which) (colour|color) is it)",
    "size": "(and |)(its size|what is its size|how (big|large) is it|what size is it)",
    "place": "(and |)(its position|where is it|what is its position)",
}
_ABOUT_ONE_THING = (*_PROPERTIES, "is_there", "is_colour", "about", "which")


@dataclass(slots=True)
class Writer:
    """Writes one chat; owns its images and what the last question was about."""

    rng: random.Random
    held_out: bool
    chat: Chat = field(default_factory=Chat)
    images: list[ImageBlock] = field(default_factory=list)
    last: Asked | None = None
    captioner: str = "demo-captioner"
    new_image_share: float = 0.25
    is_plain: bool = False

    def new_image(self) -> ImageBlock:
        """The next image: mostly of the demo grammar, sometimes odd or unreadable."""
        rng, number = self.rng, len(self.images) + 1
        size = sample_size(rng)
        roll = rng.random()
        scene: Scene | None = sample_scene(rng, self.held_out)
        reason = ""
        if self.is_plain:
            scene = sample_scene(rng, self.held_out, PLAIN_SHARES)
        elif roll < 0.07:
            scene, reason = None, rng.choice(REASONS) if rng.random() < 0.8 else words(rng, self.held_out, 5)
            size = "" if rng.random() < 0.3 else size
        elif roll < 0.14:
            scene = Scene("odd", text=odd_caption(rng, self.held_out))
        elif roll < 0.24 and self.images and self.images[-1].scene:
            scene = self.images[rng.randrange(len(self.images))].scene or scene
        image = ImageBlock(number, size, self.captioner, scene, reason)
        self.images.append(image)
        return image

    def blocks(self) -> list[str]:
        """One or several new blocks."""
        room = 8 - len(self.images)
        shares = (85, 15, 0, 0) if self.is_plain else (66, 24, 7, 3)
        count = min(room, self.rng.choices((1, 2, 3, 4), shares)[0])
        return [self.new_image().render() for _ in range(count)]

    def picture_turn(self, new: bool) -> None:
        """A question about the images, with new images in the same message if ``new``."""
        rng = self.rng
        blocks = self.blocks() if new else []
        if new:
            self.last = None
        asked = self.follow_up() if self.last and not new and rng.random() < 0.35 else None
        if asked is None:
            asked = self.no_question(len(blocks))
        held_out_phrase = self.held_out and rng.random() < 0.2
        if asked is None:
            asked = ask(
                rng,
                self.images,
                held_out_phrase,
                stranger=words(rng, self.held_out, 1),
                intents=FIRST_INTENTS if self.is_plain else INTENTS,
            )
        question = vary(rng, asked.question) if asked.question else ""
        parts = [*blocks, question] if rng.random() < 0.6 else [question, *blocks]
        self.chat.say("\n".join(part for part in parts if part), asked.answer, self.label(asked, held_out_phrase))
        self.last = asked

    def no_question(self, num_new: int) -> Asked | None:
        """New images without a word, now and then: they are described."""
        if num_new and self.rng.random() < 0.06:
            text = answers.describe_all(self.images) if num_new > 1 else answers.describe(self.images, None)
            return Asked("", text, "describe")
        return None

    def label(self, asked: Asked, held_out_phrase: bool) -> str:
        """The category of an answer."""
        if not self.images:
            return "no image"
        if asked.answer.startswith("I could not see") or asked.intent == "why":
            return "unreadable"
        return asked.intent + (" (new phrasing)" if held_out_phrase else "")

    def follow_up(self) -> Asked | None:
        """A short question that leans on the one before: "and its size?", "and the square?", "and in image 2?"."""
        rng, last = self.rng, self.last
        assert last is not None
        if last.thing:
            if last.intent in _PROPERTIES and rng.random() < 0.5:
                return self.of_another_kind(last, last.thing[0])
            if not last.thing[1] and rng.random() < 0.25:
                return self.of_its_colour(last, last.thing)
            if last.intent in _ABOUT_ONE_THING:
                return self.of_another_property(last, last.thing)
        return self.of_another_image(last) if last.intent in REPEATABLE and len(self.images) > 1 else None

    def of_another_kind(self, last: Asked, kind_before: str) -> Asked:
        """The same property of another thing: "and the square?"."""
        rng = self.rng
        kind = rng.choice(KINDS)
        shown = [t.kind for i in self.images if i.scene for t in i.scene.things if t.kind != kind_before]
        if shown and rng.random() < 0.8:
            kind = rng.choice(shown)
        answer = answers.about_thing(self.images, last.ref, kind, None, last.intent)
        text = choose(rng, f"(and|what about|how about|now|and what about) the {kind}")
        return Asked(text, answer, last.intent, last.ref, (kind, None))

    def of_its_colour(self, last: Asked, thing: tuple[str, str | None]) -> Asked:
        """Whether the same thing has a colour: "is it red?"."""
        rng = self.rng
        value = rng.choice(COLOURS)
        shown = [t.colour for i in self.images if i.scene for t in i.scene.find(thing[0])]
        value = rng.choice(shown) if shown and rng.random() < 0.5 else value
        answer = checks.is_colour(self.images, last.ref, thing[0], "colour", value)
        return Asked(choose(rng, f"(and |)is it {value}"), answer, "is_colour", last.ref, thing)

    def of_another_property(self, last: Asked, thing: tuple[str, str | None]) -> Asked | None:
        """Another property of the same thing: "and its size?"; None if the question before has told it."""
        intent = self.rng.choice([i for i in _PROPERTIES if i != last.intent])
        if intent == "colour" and thing[1]:
            return None
        answer = answers.about_thing(self.images, last.ref, thing[0], thing[1], intent)
        return Asked(choose(self.rng, _PROPERTIES[intent]), answer, intent, last.ref, thing)

    def of_another_image(self, last: Asked) -> Asked:
        """The same question about another image: "and in image 2?"."""
        rng = self.rng
        ref = rng.randint(1, len(self.images))
        asked = ask(rng, [self.images[ref - 1]], intent=last.intent)
        answer = self.again_answer(last.intent, ref) or asked.answer
        noun = rng.choice(("image", "picture"))
        text = choose(rng, f"(and in|and|what about|how about|and for) {noun} {ref}")
        return Asked(text, answer, last.intent, ref)

    def again_answer(self, intent: str, ref: int) -> str:
        """The answer to the same general question about image ``ref``."""
        if intent == "describe":
            return answers.describe(self.images, ref)
        if intent == "background":
            return checks.background(self.images, ref)
        if intent == "count":
            return answers.count(self.images, ref, None, None)
        if intent == "number":
            return checks.number(self.images, ref, "value")
        return checks.kind_of(self.images, ref, None) if intent == "kind" else answers.colours(self.images, ref)

    def talk_turn(self) -> None:
        """A line of small talk."""
        rng = self.rng
        held_out_phrase = self.held_out and rng.random() < 0.3
        intent, question, answer = talk(rng, name(rng, self.held_out), sentence(rng, self.held_out), held_out_phrase)
        known = {"greeting", "identity", "repeat", "count_up", "fallback"}
        label = intent if intent in known else "small talk"
        self.chat.say(question, answer, label + (" (new phrasing)" if held_out_phrase and intent != "repeat" else ""))
        self.last = None

    def tool_turn(self, wanted: ToolRequest) -> None:
        """A request that calls a tool, mostly with the result and the answer."""
        rng, chat = self.rng, self.chat
        self.last = None
        title = wanted.tool["function"]["name"]
        chat.messages.append({"role": "user", "content": wanted.question})
        chat.call(title, wanted.arguments)
        if rng.random() < 0.75:
            result, answer = tool_result(rng, self.held_out)
            chat.messages.append({"role": "tool", "content": result})
            chat.reply(answer, "tool answer")
            values = list(wanted.arguments.values())
            if len(values) == 1 and "city" in str(wanted.tool) and rng.random() < 0.3:
                place = name(rng, self.held_out)
                text = vary(rng, rng.choice(AGAIN).format("\x00")).replace("\x00", place)
                chat.messages.append({"role": "user", "content": text})
                chat.call(title, dict.fromkeys(wanted.arguments, place))

    def screen_turn(self) -> None:
        """A tool whose result holds an image, and the answer that describes it."""
        rng, chat = self.rng, self.chat
        tool = next(t for t in chat.tools if t["function"]["name"] in SCREEN_TOOLS)
        title = tool["function"]["name"]
        ask_text = rng.choice((*SCREEN_ASKS, f"use {title}", title.replace("_", " ")))
        chat.messages.append({"role": "user", "content": vary(rng, ask_text)})
        chat.call(title, {})
        block = self.new_image().render()
        lead = rng.choice(("", "", "Done.\n", "Screenshot taken.\n", "Here is the image:\n"))
        chat.messages.append({"role": "tool", "content": lead + block})
        self.last = None
        chat.reply(answers.describe(self.images, None), "tool answer")


def plan_tools(rng: random.Random, held_out: bool) -> list[ToolRequest]:
    """One request each for some different tools."""
    count = rng.choices((1, 2, 3, 4, 5), (34, 32, 20, 10, 4))[0]
    wanted = [request(rng, family, held_out) for family in rng.sample(FAMILIES, count)]
    wanted = [made_up_request(rng, held_out) if rng.random() < 0.3 else one for one in wanted]
    unique: dict[str, ToolRequest] = {}
    for one in wanted:
        unique.setdefault(one.tool["function"]["name"], one)
    return list(unique.values())


def screen_tool(rng: random.Random) -> Message:
    """A tool without parameters that returns an image."""
    title = rng.choice(SCREEN_TOOLS)
    description = rng.choice(("Take a screenshot.", "Returns an image.", "Show the screen.", "Take a picture."))
    parameters: Message = {"type": "object", "properties": {}}
    return {
        "type": "function",
        "function": {"name": title, "description": description, "parameters": parameters},
    }


def sample_chat(
    rng: random.Random, held_out: bool = False, kind: str = "", dense: bool = False, plain: bool = False
) -> Chat:
    """One conversation. ``kind`` is picture, talk or tools; drawn when empty.

    ``dense`` chats have more turns about fewer images: more answers to learn from in as many tokens.
    ``plain`` chats are what people try first: mostly one picture of one thing or a number, and ordinary questions.
    """
    kind = kind or rng.choices(("picture", "talk", "tools"), (82, 6, 12) if plain else (62, 15, 23))[0]
    writer = Writer(rng, held_out, is_plain=plain)
    if not plain and rng.random() < 0.25:
        writer.captioner = rng.choice(CAPTIONERS)
    if rng.random() < 0.4:
        system = rng.choice(SYSTEMS) if rng.random() < 0.85 else words(rng, held_out, rng.choice((8, 60))).capitalize()
        writer.chat.messages.append({"role": "system", "content": system})
    turns = rng.choices((1, 2, 3, 4, 5, 6, 10), (15, 20, 23, 19, 11, 9, 3))[0]
    if dense:
        turns = rng.choices((1, 2, 3, 5, 8, 11, 14), (5, 5, 6, 10, 24, 30, 20))[0]
        writer.new_image_share = 0.07
    if kind == "tools":
        write_tool_chat(writer, min(turns, 8 if dense else 4))
    elif kind == "talk":
        for _ in range(turns):
            if rng.random() < 0.2:
                writer.picture_turn(new=False)
            else:
                writer.talk_turn()
    else:
        write_picture_chat(writer, turns)
    return writer.chat


def write_picture_chat(writer: Writer, turns: int) -> None:
    """A chat about pictures, with some small talk, and sometimes tools that nobody needs."""
    rng = writer.rng
    if rng.random() < 0.08:
        writer.chat.tools = [one.tool for one in plan_tools(rng, writer.held_out)]
    late = rng.random() < 0.1
    for turn in range(turns):
        if (turn == 0 and late and turns > 1) or (turn > 0 and rng.random() < 0.09):
            writer.talk_turn()
        else:
            new = not writer.images or (len(writer.images) < 8 and rng.random() < writer.new_image_share)
            writer.picture_turn(new)


def write_tool_chat(writer: Writer, turns: int) -> None:
    """A chat with tools: requests that need one, small talk and pictures that do not."""
    rng = writer.rng
    plan = plan_tools(rng, writer.held_out)
    tools = [one.tool for one in plan]
    with_screen = rng.random() < 0.12
    if with_screen:
        tools.insert(rng.randint(0, len(tools)), screen_tool(rng))
    rng.shuffle(tools)
    writer.chat.tools = tools
    families = {one.tool["function"]["name"] for one in plan}
    for _ in range(turns):
        roll = rng.random()
        if with_screen and roll < 0.4:
            writer.screen_turn()
        elif roll < 0.74 and plan:
            writer.tool_turn(plan.pop(rng.randrange(len(plan))))
        elif roll < 0.86 or not families:
            safe_talk(writer)
        else:
            writer.picture_turn(not writer.images and rng.random() < 0.85)


def safe_talk(writer: Writer) -> None:
    """Small talk that no tool of the chat could serve; the model must not call one."""
    chat = writer.chat
    mark = len(chat.messages)
    while True:
        writer.talk_turn()
        is_plain = chat.labels[-1].split(" (")[0] in ("greeting", "identity", "small talk")
        if is_plain and not asks_for_tool(chat.messages[mark]["content"]):
            chat.labels[-1] = "no tool fits"
            return
        del chat.messages[mark:]
        chat.labels.pop()


def asks_for_tool(question: str) -> bool:
    """Whether a tool of the families might answer a line of small talk."""
    lowered = question.lower()
    return any(
        word in lowered
        for word in ("date", "day", "time", "+", "plus", "capital", "play", "add", "much", "song", "year")
    )
