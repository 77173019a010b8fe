"""Tools, requests that need them, their results and the answers to those.

Tool names of the held-out share are never trained. Pure functions of a ``random.Random``.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from training.text.families import Family
from training.text.phrases import choose, split_phrases, vary
from training.text.scenes import is_held_out
from training.text.words import CITIES, made_up_word, name, words

VERBS = ("get", "find", "lookup", "fetch", "check", "show", "read", "load")
OPTIONAL = (
    ("unit", "string"),
    ("limit", "integer"),
    ("language", "string"),
    ("verbose", "boolean"),
    ("format", "string"),
    ("page", "integer"),
)


LANGUAGES = ["French", "German", "Spanish", "Italian", "Dutch", "Polish", "Latin", "Greek", "Swedish", "Japanese"]
CONDITIONS = ["sunny", "cloudy", "rainy", "windy", "foggy", "snowy", "clear", "stormy"]
KEYS = [
    "temperature",
    "condition",
    "value",
    "status",
    "total",
    "result",
    "price",
    "city",
    "title",
    "level",
    "humidity",
    "speed",
    "name",
    "count",
]
TYPES = {"name": "string", "words": "string", "number": "integer", "ticker": "string", "language": "string"}


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A request with the one right call, and what the called tool is like."""

    tool: dict[str, Any]
    question: str
    arguments: dict[str, Any]


def split_choice(rng: random.Random, options: list[str], held_out: bool) -> str:
    """A held-out option where there is one, else any trained one."""
    fitting = [option for option in options if is_held_out(option) == held_out]
    return rng.choice(fitting or options)


def fill(rng: random.Random, slot: str, held_out: bool) -> str | int:
    """A value for a slot kind."""
    if slot == "name":
        return name(rng, held_out)
    if slot == "number":
        return rng.randint(1, rng.choice((9, 20, 99, 999, 9999)))
    if slot == "ticker":
        return "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.randint(2, 5)))
    return rng.choice(LANGUAGES) if slot == "language" else words(rng, held_out, 3)


def make_tool(rng: random.Random, title: str, description: str, parameters: list[tuple[str, str]]) -> dict[str, Any]:
    """A tool in OpenAI's shape; now and then with an optional parameter that no request fills."""
    properties: dict[str, Any] = {key: {"type": kind} for key, kind in parameters}
    if rng.random() < 0.2:
        key, kind = rng.choice(OPTIONAL)
        properties.setdefault(key, {"type": kind})
    required = [key for key, _ in parameters]
    function: dict[str, Any] = {"name": title}
    if description:
        function["description"] = description
    function["parameters"] = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": function}


def request(rng: random.Random, family: Family, held_out: bool, tool: dict[str, Any] | None = None) -> ToolRequest:
    """A request to a tool of the family (to ``tool`` if given)."""
    if tool is None:
        keys: list[str] = []
        for _, options in family.slots:
            index = rng.randrange(len(options.split()))
            keys.append(options.split()[index])
        if len(keys) == 2 and family.slots[0][0] == family.slots[1][0]:
            position = family.slots[0][1].split().index(keys[0])
            keys[1] = family.slots[1][1].split()[position]
        title = split_choice(rng, family.names.split(), held_out)
        pairs = [(key, TYPES[slot]) for key, (slot, _) in zip(keys, family.slots, strict=True)]
        tool = make_tool(rng, title, describe(rng, family), pairs)
    names = list(tool["function"]["parameters"]["required"])
    values = [fill(rng, slot, held_out) for slot, _ in family.slots]
    text = choose(rng, rng.choice(split_phrases(list(family.phrases), held_out and rng.random() < 0.3)))
    text = spoken(rng, text, values)
    return ToolRequest(tool, text, dict(zip(names, values, strict=True)))


def describe(rng: random.Random, family: Family) -> str:
    """A description of the family's tool, or none."""
    parts: list[str] = []
    depth, start = 0, 0
    for index, char in enumerate(family.descriptions + "|"):
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char == "|" and depth == 0:
            parts.append(family.descriptions[start:index])
            start = index + 1
    return choose(rng, rng.choice(parts))


def spoken(rng: random.Random, text: str, values: list[str | int]) -> str:
    """The phrasing with its values, which keep their case."""
    marks = [f"\x00{index}" for index in range(len(values))]
    varied = vary(rng, text.format(*marks) if values else text)
    for mark, value in zip(marks, values, strict=True):
        varied = varied.replace(mark, str(value))
    return varied


def made_up_request(rng: random.Random, held_out: bool) -> ToolRequest:
    """A tool nobody knows: its name, description and parameter are made-up words to copy."""
    noun = words(rng, held_out, 1)
    verb = rng.choice(VERBS)
    title = rng.choice((f"{verb}_{noun}", f"{noun}_{verb}", f"{verb}{noun.capitalize()}", noun))
    key = rng.choice((f"{noun}_id", f"{noun}_name", "id", "name", "key", "value", noun, made_up_word(rng)))
    slot = rng.choice(("name", "number", "words"))
    tool = make_tool(
        rng,
        title,
        rng.choice((f"{verb.capitalize()} a {noun}.", f"{verb.capitalize()} the {noun}.", "")),
        [(key, TYPES[slot])],
    )
    value = fill(rng, slot, held_out)
    form = rng.choice(
        (
            f"{verb} the {noun} {{0}}",
            f"{verb} {noun} {{0}}",
            f"please {verb} the {noun} {{0}}",
            f"call {title} with {{0}}",
            f"use {title} for {{0}}",
            f"i need the {noun} {{0}}",
            f"can you {verb} the {noun} {{0}}",
        )
    )
    return ToolRequest(tool, spoken(rng, form, [value]), {key: value})


def tool_result(rng: random.Random, held_out: bool) -> tuple[str, str]:
    """A tool's result as text or JSON, and the answer that tells it."""
    roll = rng.random()
    if roll < 0.12:
        reason = words(rng, held_out, 4)
        return json.dumps({"error": reason}), f"The tool failed: {reason}."
    if roll < 0.5:
        keys = rng.sample(KEYS, rng.choice((1, 1, 2, 2, 3)))
        values = {key: result_value(rng, held_out) for key in keys}
        return json.dumps(values), "The tool says: " + ", ".join(f"{k} is {v}" for k, v in values.items()) + "."
    if roll < 0.54:
        items = [str(result_value(rng, held_out)) for _ in range(rng.randint(1, 5))]
        return json.dumps(items), f"The tool says: {', '.join(items)}."
    if roll < 0.65:
        text = str(rng.randint(-20, 99999))
    elif roll < 0.8:
        text = f"{rng.randint(-10, 40)} degrees and {rng.choice(CONDITIONS)}"
    else:
        text = words(rng, held_out, rng.choice((8, 8, 25)))
        text = text[0].upper() + text[1:] + rng.choice((".", "", "!"))
    return text, f"The tool says: {text}"


def result_value(rng: random.Random, held_out: bool) -> str | int | float:
    """One value of a JSON result."""
    roll = rng.random()
    if roll < 0.35:
        return rng.randint(0, 9999)
    if roll < 0.45:
        return round(rng.uniform(0, 100), 1)
    return (
        rng.choice(CONDITIONS)
        if roll < 0.6
        else rng.choice((words(rng, held_out, 2), name(rng, held_out), rng.choice(CITIES)))
    )
