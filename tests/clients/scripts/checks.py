"""What the scripts of all Python clients share. Standard library alone: each runs in an environment of its own."""

from __future__ import annotations

import base64
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

URL = os.environ["PERISCOPE_URL"]
BASE_URL = f"{URL}/v1"
KEY = os.environ["PERISCOPE_KEY"]
WRONG_KEY = "no-such-key"
MODEL = "demo"
NO_MODEL = "no-such-model"
#: A red circle on white.
PICTURE = Path(os.environ["PERISCOPE_PICTURE"])
PICTURE_BASE64 = base64.b64encode(PICTURE.read_bytes()).decode()
PICTURE_URL = f"data:image/png;base64,{PICTURE_BASE64}"

EMBEDDER = "embedder"

HELLO = "Hello!"
ABOUT_PICTURE = "What colour is the circle?"
ABOUT_WEATHER = "What is the weather in Bern?"
COLOURS = ["red", "green", "blue"]
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
    "additionalProperties": False,
}
REPORT = "Sunny, 21 degrees."


def run(**checks: Callable[[], None]) -> None:
    """Run the checks, each told in a line of JSON. One that is missing is not offered by the client."""
    for name, check in checks.items():
        try:
            check()
        except Exception as error:  # noqa: BLE001 - any is a failed check
            traceback.print_exc(file=sys.stderr)
            _tell(name, "failed", f"{type(error).__name__}: {error}")
        else:
            _tell(name, "ok", "")


def _tell(name: str, result: str, detail: str) -> None:
    print(json.dumps({"check": name, "result": result, "detail": detail[:500]}), flush=True)


@contextmanager
def refused(*said: str) -> Iterator[None]:
    """The client raises an error of its own that tells these words, as text or in a field."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - which one is the client's to choose
        told = f"{type(error).__name__} {error} {vars(error)}".lower()
        missing = [word for word in said if word.lower() not in told]
        assert not missing, f"{missing} not in {told}"
    else:
        raise AssertionError("no error was raised")


def names_red(text: Any) -> None:
    """The answer names the colour of the picture."""
    assert "red" in str(text).lower(), text
