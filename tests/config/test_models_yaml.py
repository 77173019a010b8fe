"""The shipped models.yaml works, and documents every key as the schema has it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from periscope.config import json_schema, load
from periscope.config.document import read_document
from periscope.config.keys import dotted, section_at, section_of, settings
from periscope.config.quantities import parse_bytes, parse_seconds
from periscope.config.section import fields_of
from periscope.core import ModelKind, VisionMode
from tests.config.files import load_text, numbers, properties

PATH = Path(__file__).parents[2] / "models.yaml"
#: Keys whose reference line shows an example because they have no default to show.
EXAMPLES = {
    "models[].name",
    "models[].hf_id",
    "models[].remote.base_url",
    "models[].remote.model",
    "mcp_servers[].name",
}
SETTINGS = dict(settings())


def reference() -> dict[str, tuple[object, str]]:
    """Maps each key to its documented default and comment, from the commented block at the end of the file."""
    block = PATH.read_text(encoding="utf-8").partition("# ---- Reference")[2].splitlines()[1:]
    document = read_document("\n".join(line.removeprefix("# ") for line in block), "reference")
    assert not document.problems
    found = {}
    for loc, origin in document.origins.items():
        if loc and isinstance(loc[-1], str):
            value = document.tree
            for key in loc:
                value = value[key]
            comment = block[origin.line - 1].partition("# ")[2].partition("# ")[2]
            found[re.sub(r"\[\d+\]", "[]", dotted(loc))] = (value, comment)
    return found


REFERENCE = reference()


@pytest.fixture(scope="module")
def shipped():
    """The shipped file, loaded without any other settings."""
    return load(PATH, {}, {}, cwd=PATH.parent, home=PATH.parent)


def test_it_starts_with_the_embedded_pair(shipped):
    """The first text model is the demo with its captioner; both are loaded at start and nothing else is."""
    demo, captioner = shipped.models[:2]
    assert (demo.name, demo.local_path, demo.aliases) == ("demo", "embedded:text", ("default",))
    assert (captioner.name, captioner.local_path) == ("demo-captioner", "embedded:captioner")
    assert demo.capabilities.vision_mode is VisionMode.PROXY
    assert demo.capabilities.vision_proxy.model == captioner.name
    assert captioner.kind is ModelKind.CAPTIONER
    assert shipped.default_model is demo
    assert [model.name for model in shipped.models if model.preload] == ["demo", "demo-captioner"]


def test_the_seeds_own_pair_comes_next(shipped):
    """Ministral with Qwen2-VL, as mlx-community builds, loaded on demand."""
    text = shipped.models[2]
    assert text.hf_id == "mlx-community/Ministral-3-3B-Reasoning-2512-4bit"
    assert text.capabilities.vision_proxy.hf_id == "mlx-community/Qwen2-VL-7B-Instruct-4bit"
    assert not text.preload


def test_every_text_model_of_it_can_take_images(shipped):
    """Each pair is complete: every text model has a captioner."""
    names = {model.name for model in shipped.models if model.kind is ModelKind.CAPTIONER}
    for model in shipped.models:
        if model.kind is ModelKind.TEXT:
            assert model.capabilities.vision_proxy.model in names


def test_the_native_example_works_when_uncommented():
    """The last commented entry is valid."""
    *_, native = commented_examples()
    assert read_document(native, "example").tree["models"][0]["capabilities"] == {"vision_mode": "native"}


def test_the_example_of_another_server_works_when_uncommented():
    """It loads beside the shipped models, and is a captioner."""
    remote, *_ = commented_examples()
    text = PATH.read_text(encoding="utf-8").partition("# ---- Reference")[0] + remote.removeprefix("models:")
    remotes = [(model.remote.backend, model.kind) for model in load_text(text).models if model.remote is not None]
    assert remotes == [("vllm", ModelKind.CAPTIONER)]


def commented_examples() -> list[str]:
    """The entries in comments, each as a file of its own."""
    text = PATH.read_text(encoding="utf-8")
    found = re.findall(r"^  # - name: .*\n(?:  #   .*\n)+", text, re.MULTILINE)
    return ["models:\n" + "".join(line.replace("  # ", "  ", 1) for line in each.splitlines(True)) for each in found]


def test_the_reference_has_every_key_and_no_other():
    """The reference lists exactly the keys of the schema."""
    sections = {key for key in REFERENCE if key not in SETTINGS}
    assert set(SETTINGS) <= set(REFERENCE)
    for key in sections:
        *outer, last = (part.removesuffix("[]") for part in key.split("."))
        section = section_at(tuple(outer))
        assert section, key
        assert section_of(fields_of(section)[last].annotation), key


@pytest.mark.parametrize("key", sorted(set(SETTINGS) - EXAMPLES))
def test_documented_defaults_are_the_defaults(key):
    """The defaults in the file are those of the schema."""
    documented, default = REFERENCE[key][0], SETTINGS[key].default
    assert (tuple(documented) if isinstance(documented, list) else documented) == default


@pytest.mark.parametrize("key", sorted(SETTINGS))
def test_comments_say_what_the_schema_says(key):
    """Each comment holds the key's description, unit and bounds."""
    comment, schema = REFERENCE[key][1], properties(json_schema(), key)
    assert schema["description"] in comment
    for number in numbers(schema):
        unit = schema["unit"]
        span = re.match(rf"{unit}, (\S+(?: [KMGT]iB)?) to (\S+(?: [KMGT]iB)?)\. ", comment)
        assert span, comment
        read = {"bytes": parse_bytes, "seconds": parse_seconds}.get(unit, float)
        assert [read(text) for text in span.groups()] == [number["minimum"], number["maximum"]]
