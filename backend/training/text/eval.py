"""Measures the demo text model through mlx-lm on held-out chats (no torch).

Run from ``backend/``: ``python -m training.text.eval [FOLDER] [--chats 600]``. Greedy decoding, the chat
template of the folder, the right earlier turns. An answer counts only if it is right to the letter; a tool call if
mlx-lm's parser reads it and its name and arguments are right. The chats come from other seeds than training and
use colour-kind-size combinations, numbers, names, words and tool names that were never trained; the share marked
"new phrasing" also words the question in a way that was never trained.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mlx_lm import load
from mlx_lm.models.cache import make_prompt_cache, trim_prompt_cache

from periscope.demo import EMBEDDED_MODELS
from training.text.byhand import conversations
from training.text.chats import Message, sample_chat
from training.text.smalltalk import IDENTITY

SEED = "test 2"
MAX_ANSWER_TOKENS = 320
NEW_PHRASING = " (new phrasing)"
YES_NO = "is_there is_there_colour is_there_number is_colour is_background is_empty is_anything bigger is_beside"
CATEGORIES = {
    "colour": ["colour", "colours", "background", "number_colour"],
    "kind": ["kind", "kind_of"],
    "count": ["count", "count_of", "count_all", "count_images", "number_digits"],
    "position": ["place", "places", "number_place", "beside", "side"],
    "size": ["size", "sizes", "biggest", "smallest"],
    "number": ["number"],
    "which image": ["which"],
    "yes/no": YES_NO.split(),
    "compare": ["compare", "same", "different"],
    "describe": ["describe", "describe_all", "about"],
    "about the image": ["pixels", "captioner"],
    "no image": ["no image"],
    "unreadable image": ["unreadable"],
    "greeting": ["greeting"],
    "what are you": ["identity"],
    "other small talk": ["small talk"],
    "fallback": ["fallback"],
    "count from a to b": ["count_up"],
    "repeat after me": ["repeat"],
    "tool call": ["tool call"],
    "answer after a tool": ["tool answer"],
    "no call if no tool fits": ["no tool fits"],
    "written by hand": ["by hand"],
}
CATEGORY_OF = {label: category for category, labels in CATEGORIES.items() for label in labels}


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages with the right answers, and the label of each answer."""

    messages: list[Message]
    tools: list[Message]
    labels: list[str]


@dataclass(slots=True)
class Tally:
    """What was counted: per category [right, asked] for trained and for new phrasings, and speed."""

    scores: dict[str, list[int]]
    well_formed: int = 0
    answers: int = 0
    tokens: int = 0
    decode_s: float = 0.0


def test_set(chats: int, seed: str, *, plain: bool) -> list[Conversation]:
    """The held-out chats and the conversations written by hand; ``plain`` chats are what people try first."""
    rng = random.Random(seed)
    held_out = [sample_chat(rng, held_out=True, plain=plain) for _ in range(chats)]
    found = [Conversation(chat.messages, chat.tools, chat.labels) for chat in held_out]
    by_hand = conversations(IDENTITY)
    return found + [Conversation(messages, [], ["by hand"] * (len(messages) // 2)) for messages in by_hand]


def _likeliest(model: Any, cache: Any, tokens: list[int]) -> int:
    return cast("int", mx.argmax(model(mx.array([tokens]), cache=cache)[0, -1]).item())


def decode(model: Any, stops: set[int], cache: Any, fresh: list[int]) -> list[int]:
    """Greedy answer to a prompt whose last tokens are ``fresh``; the cache is left holding the prompt only."""
    tokens: list[int] = []
    token = _likeliest(model, cache, fresh)
    while token not in stops and len(tokens) < MAX_ANSWER_TOKENS:
        tokens.append(token)
        token = _likeliest(model, cache, [token])
    trim_prompt_cache(cache, len(tokens))
    return tokens


def read_calls(tokenizer: Any, text: str) -> list[Message] | None:
    """The tool calls of an answer, or None where there is none or it can not be parsed."""
    start, end = tokenizer.tool_call_start, tokenizer.tool_call_end
    if start not in text:
        return None
    try:
        return [tokenizer.tool_parser(part.split(end)[0], None) for part in text.split(start)[1:]]
    except ValueError:
        return None


def is_right(tokenizer: Any, expected: Message, text: str) -> bool:
    """Whether the answer is the expected one."""
    if expected.get("tool_calls"):
        return read_calls(tokenizer, text) == [call["function"] for call in expected["tool_calls"]]
    return text.strip() == str(expected["content"]).strip()


def evaluate(folder: Path, chats: int, seed: str, show_wrong: int, *, plain: bool = False) -> Tally:
    """Asks everything and counts."""
    model, tokenizer = load(str(folder))[:2]
    tally = Tally(defaultdict(lambda: [0, 0, 0, 0]))
    for conversation in test_set(chats, seed, plain=plain):
        cache, held, labels = make_prompt_cache(model), 0, iter(conversation.labels)
        for index, message in enumerate(conversation.messages):
            if message["role"] != "assistant":
                continue
            before = conversation.messages[:index]
            prompt = tokenizer.apply_chat_template(before, tools=conversation.tools or None, add_generation_prompt=True)
            began = time.monotonic()
            tokens = decode(model, tokenizer.eos_token_ids, cache, prompt[held:])
            tally.decode_s += time.monotonic() - began
            tally.tokens += len(tokens) + 1
            held, text, label = len(prompt), tokenizer.decode(tokens), next(labels)
            right = count(tally, tokenizer, label, message, text)
            if not right and show_wrong > 0:
                show_wrong -= 1
                print(f"[{label}] {before[-1]['content']!r}\n  want {message}\n  got  {text!r}")
    return tally


def count(tally: Tally, tokenizer: Any, label: str, expected: Message, text: str) -> bool:
    """Adds one answer to the tally; returns whether it was right."""
    right = is_right(tokenizer, expected, text)
    row = tally.scores[CATEGORY_OF[label.removesuffix(NEW_PHRASING)]]
    offset = 2 if label.endswith(NEW_PHRASING) else 0
    row[offset] += right
    row[offset + 1] += 1
    tally.answers += 1
    if expected.get("tool_calls"):
        tally.well_formed += read_calls(tokenizer, text) is not None
    return right


def percent(right: int, asked: int) -> str:
    """Writes ``97.5 % of 80``, or a dash."""
    return f"{100 * right / asked:.1f} % of {asked}" if asked else "-"


def table(tally: Tally) -> str:
    """The scores as a Markdown table."""
    lines = ["| category | trained phrasings | new phrasings |", "|---|---|---|"]
    total = [0, 0, 0, 0]
    for category in CATEGORIES:
        row = tally.scores.get(category, [0, 0, 0, 0])
        total = [a + b for a, b in zip(total, row, strict=True)]
        lines.append(f"| {category} | {percent(row[0], row[1])} | {percent(row[2], row[3])} |")
    lines.append(f"| **all** | {percent(total[0], total[1])} | {percent(total[2], total[3])} |")
    calls = tally.scores.get("tool call", [0, 0, 0, 0])
    lines.append(f"\nTool calls that mlx-lm's parser reads: {percent(tally.well_formed, calls[1])}.")
    lines.append(f"{tally.answers} answers, {tally.tokens} tokens in {tally.decode_s:.0f} s with their prompts.")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=EMBEDDED_MODELS["embedded:text"])
    parser.add_argument("--chats", type=int, default=600)
    parser.add_argument("--seed", default=SEED)
    parser.add_argument("--show-wrong", type=int, default=0, help="print this many wrong answers")
    parser.add_argument("--plain", action="store_true", help="the chats people try first, instead of all kinds")
    parser.add_argument("--json", type=Path, help="also write the scores here")
    arguments = parser.parse_args()
    try:
        tally = evaluate(arguments.folder, arguments.chats, arguments.seed, arguments.show_wrong, plain=arguments.plain)
    finally:
        mx.clear_streams()
    print(table(tally))
    if arguments.json:
        arguments.json.write_text(json.dumps(tally.scores, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
