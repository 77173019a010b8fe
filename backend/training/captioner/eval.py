"""Measures the shipped demo captioner through mlx-vlm, greedy, with its own processor. No torch.

    python -m training.captioner.eval --count 150

from backend/, with mlx-vlm, numpy and pillow (and the fonts that fonts.py names). Two tests:
the renderer's held-out pictures, and pictures as a person draws them. Pictures go the way the product
sends them.
"""

import argparse
import json
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from periscope.demo import EMBEDDED_MODELS
from training.captioner import grammar
from training.captioner.person import person_pictures
from training.captioner.pictures import Wish, draw_picture

WEIGHTS = EMBEDDED_MODELS["embedded:captioner"]
MAX_SIDE_PX = 1024
MAX_TOKENS = 64
RENDERED_SETS = {
    "one shape": Wish("one"),
    "one shape, colour-kind pair never trained": Wish("one", "pair"),
    "one shape, place on background never trained": Wish("one", "place"),
    "two shapes": Wish("two"),
    "two shapes, colour-kind pairs never trained": Wish("two", "pair"),
    "three shapes": Wish("three"),
    "number of 1 digit": Wish("number", None, 1),
    "number of 2 digits, never trained": Wish("number", "number", 2),
    "number of 3 digits, never trained": Wish("number", "number", 3),
    "number of 4 digits, never trained": Wish("number", "number", 4),
    "number of 1-4 digits, font never trained": Wish("number", "font"),
    "number, place on background never trained": Wish("number", "place"),
    "nothing": Wish("nothing"),
    "complex (textures, landscapes, words, crowds)": Wish("complex"),
}

_SHAPE = r"a (?:small|medium|large) (?P<colour{0}>\w+) (?P<kind{0}>\w+)"
_GROUND = r"an? (?P<ground>\w+) background"
_PLACE = r"(?P<place>in the center|at the [\w ]+?)"
_SENTENCES = {
    "one": _SHAPE.format(1).replace("a ", "A ", 1) + f" {_PLACE} of {_GROUND}",
    "two": f"Two shapes on {_GROUND}: {_SHAPE.format(1)} (?P<relation>left of|above) {_SHAPE.format(2)}",
    "three": f"Three shapes on {_GROUND}: {_SHAPE.format(1)}, {_SHAPE.format(2)} and {_SHAPE.format(3)}",
    "number": rf'Text "(?P<digits>\d+)" in (?P<colour1>\w+) {_PLACE} of {_GROUND}',
    "nothing": r"A plain (?P<ground>\w+) background with nothing on it",
    "complex": re.escape(grammar.COMPLEX_CAPTION[:-1]),
}
_PATTERNS = {category: re.compile(pattern + r"\.") for category, pattern in _SENTENCES.items()}


@dataclass(frozen=True)
class Facts:
    """What a sentence of the grammar says; category `unknown` where it is no such sentence."""

    category: str
    shapes: tuple[tuple[str, str], ...] = ()
    relation: str = ""
    digits: str = ""
    background: str = ""


def facts_of(caption: str) -> Facts:
    """Reads a caption (pure)."""
    for category, pattern in _PATTERNS.items():
        if match := pattern.fullmatch(caption):
            said = match.groupdict()
            shapes = tuple((said[f"colour{i}"], said[f"kind{i}"]) for i in (1, 2, 3) if f"kind{i}" in said)
            return Facts(category, shapes, said.get("relation", ""), said.get("digits", ""), said.get("ground", ""))
    return Facts("unknown")


def product_view(image: Image.Image) -> Image.Image:
    """The picture as the product hands it to the captioner: RGB over white, at most 1024 px."""
    if image.mode in {"RGBA", "LA", "P", "PA"}:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    image = image.convert("RGB")
    image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return image


class MlxCaptioner:
    """Owns the loaded model and processor; use it on the thread that made it."""

    def __init__(self, path: Path) -> None:
        from mlx_vlm import load
        from mlx_vlm.prompt_utils import apply_chat_template

        self.model: Any
        self.processor: Any
        self.model, self.processor = load(str(path))
        self.prompt = apply_chat_template(self.processor, self.model.config, grammar.CAPTION_PROMPT, num_images=1)

    def caption(self, image: Image.Image) -> str:
        """One greedy caption."""
        from mlx_vlm import generate

        result = generate(
            self.model, self.processor, self.prompt, image=[image], max_tokens=MAX_TOKENS, temperature=0.0
        )
        return str(result.text).strip()

    def batched_captions(self, images: list[Image.Image]) -> list[str]:
        """Greedy captions of several images at once, prefilled one by one (see MLX-NOTES 3.3)."""
        from mlx_vlm import prepare_inputs
        from mlx_vlm.generate import BatchGenerator

        stop = set(self.model.config.eos_token_id)
        generator = BatchGenerator(
            self.model.language_model,
            self.processor,
            max_tokens=MAX_TOKENS,
            stop_tokens=stop,
            prefill_batch_size=1,
        )
        tokens: dict[int, list[int]] = {}
        for image in images:
            raw = prepare_inputs(
                self.processor,
                images=[image],
                prompts=self.prompt,
                image_token_index=self.model.config.image_token_index,
                add_special_tokens=True,
            )
            ids, pixels, mask = raw.pop("input_ids"), raw.pop("pixel_values"), raw.pop("attention_mask")
            embedded = self.model.get_input_embeddings(ids, pixels, mask=mask, **raw)
            extra = {**raw, **{k: v for k, v in embedded.to_dict().items() if v is not None}}
            prompt = ids.squeeze(0).tolist()
            (uid,) = generator.insert([prompt], max_tokens=MAX_TOKENS, prompt_kwargs=[extra], logits_processors=[None])
            tokens[uid] = []
        while generator.has_work:
            for response in generator.next()[1]:
                if response.token not in stop:
                    tokens[response.uid].append(response.token)
        generator.close()
        return [str(self.processor.tokenizer.decode(ids)).strip() for ids in tokens.values()]


@dataclass
class Tally:
    """Counts of one set: `named` is the main measure, see `score`."""

    total: int = 0
    hits: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    misses: list[str] = field(default_factory=list)

    def add(self, wanted: Facts, caption: str, *, sentence: str | None) -> None:
        """Counts one caption."""
        self.total += 1
        marks = score(wanted, facts_of(caption))
        if sentence is not None:
            marks["sentence"] = caption == sentence
        for name, is_right in marks.items():
            self.hits[name] += is_right
        if not marks["named"]:
            self.misses.append(f"{sentence or wanted} -> {caption}")

    def shares(self) -> dict[str, float]:
        """Share right per measure, with the number of pictures as `n`."""
        return {"n": self.total, **{name: hits / self.total for name, hits in self.hits.items()}}


def score(wanted: Facts, said: Facts) -> dict[str, bool]:
    """What is right, by measure.

    `named` is, for shapes, each colour with its kind (in any order); for a number its digits; else the
    category and, where nothing is drawn, the background.
    """
    if wanted.category == "number":
        return {"named": said.digits == wanted.digits}
    if not wanted.shapes:
        is_same_ground = wanted.category != "nothing" or said.background == wanted.background
        return {"named": said.category == wanted.category and is_same_ground}
    marks = {"named": said.category == wanted.category and sorted(said.shapes) == sorted(wanted.shapes)}
    marks["colours"] = sorted(c for c, _ in said.shapes) == sorted(c for c, _ in wanted.shapes)
    marks["kinds"] = sorted(k for _, k in said.shapes) == sorted(k for _, k in wanted.shapes)
    if wanted.relation:
        marks["relation"] = said.shapes == wanted.shapes and said.relation == wanted.relation
    return marks


def rendered(count: int) -> Iterator[tuple[str, Image.Image, Facts, str | None]]:
    """The renderer's held-out pictures: seeds below 1,000,000 are never trained."""
    for name, wish in RENDERED_SETS.items():
        for seed in range(count):
            picture = draw_picture(seed, wish)
            yield name, picture.image, facts_of(picture.caption), picture.caption


def drawn_by_person(count: int) -> Iterator[tuple[str, Image.Image, Facts, str | None]]:
    """The person's pictures."""
    by_count = {1: "one", 2: "two", 3: "three"}
    for item in person_pictures(count):
        if item.shapes:
            facts = Facts(by_count[len(item.shapes)], item.shapes, item.relation)
        elif item.digits:
            facts = Facts("number", digits=item.digits)
        else:
            facts = Facts("nothing", background="white") if item.is_plain else Facts("complex")
        yield item.group, item.image, facts, None


def measure(
    captioner: MlxCaptioner, pictures: Iterable[tuple[str, Image.Image, Facts, str | None]]
) -> tuple[dict[str, Tally], list[float]]:
    """Captions every picture; the tallies by set and the seconds of each caption."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    seconds = []
    for name, image, wanted, sentence in pictures:
        view = product_view(image)
        start = time.perf_counter()
        caption = captioner.caption(view)
        seconds.append(time.perf_counter() - start)
        tallies[name].add(wanted, caption, sentence=sentence)
    return tallies, seconds


def table(title: str, tallies: dict[str, Tally]) -> str:
    """The tallies as a Markdown table."""
    columns = ("named", "colours", "kinds", "relation", "sentence")
    lines = [f"| {title} | n | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for name, tally in tallies.items():
        shares = tally.shares()
        cells = [f"{shares[c]:.1%}" if c in shares else "" for c in columns]
        lines.append(f"| {name} | {tally.total} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def compare_batched(captioner: MlxCaptioner, count: int) -> str:
    """Whether batched captions equal single ones, in one sentence."""
    images = [product_view(image) for _, image, _, _ in rendered(count)]
    single = [captioner.caption(image) for image in images]
    batched = []
    for start in range(0, len(images), 8):
        batched += captioner.batched_captions(images[start : start + 8])
    same = sum(a == b for a, b in zip(single, batched, strict=True))
    return f"batched (8 at a time) equals single: {same} of {len(images)}"


_TESTS = {
    "rendered": ("renderer's held-out pictures", rendered),
    "person": ("pictures as a person draws them", drawn_by_person),
}


def main() -> None:
    """Prints the two tables, the time of a caption, and whether batches agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, default=WEIGHTS)
    parser.add_argument("--count", type=int, default=150, help="pictures per set")
    parser.add_argument("--test", choices=("rendered", "person", "both"), default="both")
    parser.add_argument("--misses", type=int, default=0, help="show so many wrong captions per set")
    parser.add_argument("--json", type=Path, help="also write the shares here")
    arguments = parser.parse_args()
    captioner = MlxCaptioner(arguments.model)
    shares, seconds = {}, []
    for test, (title, source) in _TESTS.items():
        if arguments.test not in {test, "both"}:
            continue
        tallies, took = measure(captioner, source(arguments.count))
        seconds += took
        print(table(title, tallies), flush=True)
        print()
        for name, tally in tallies.items():
            for miss in tally.misses[: arguments.misses]:
                print(f"  {name}: {miss}")
        shares[title] = {name: tally.shares() for name, tally in tallies.items()}
    seconds.sort()
    median = seconds[len(seconds) // 2]
    print(f"seconds per caption: median {median:.3f}, slowest {seconds[-1]:.3f}, n {len(seconds)}")
    print(compare_batched(captioner, max(2, arguments.count // 20)))
    if arguments.json:
        arguments.json.write_text(json.dumps(shares, indent=2))


if __name__ == "__main__":
    main()
