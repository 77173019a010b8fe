"""The command `llm`, with the settings that `periscope connect llm` prints (`LLM_SETTINGS`)."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from checks import ABOUT_PICTURE, ABOUT_WEATHER, HELLO, KEY, NO_MODEL, PICTURE, REPORT, WRONG_KEY, names_red, run

LLM = Path(sys.executable).with_name("llm")
SETTINGS = os.environ["LLM_SETTINGS"]


def llm(*arguments: str, settings: str = SETTINGS, key: str = KEY) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "extra-openai-models.yaml").write_text(settings)
        (Path(home) / "keys.json").write_text(json.dumps({"periscope": key}))
        command = [str(LLM), "-m", "periscope-demo", *arguments]
        environment = {**os.environ, "LLM_USER_PATH": home}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)


def said(*arguments: str) -> str:
    ended = llm(*arguments)
    assert ended.returncode == 0, ended.stderr[-500:]
    return ended.stdout


def told(ended: subprocess.CompletedProcess[str], *words: str) -> None:
    assert ended.returncode != 0
    missing = [word for word in words if word not in ended.stderr]
    assert not missing, ended.stderr[-500:]


def chat() -> None:
    assert said(HELLO, "--no-stream").strip()


def stream() -> None:
    assert said(HELLO).strip()


def tools() -> None:
    code = f"def get_weather(city: str) -> str:\n    'The weather in a city.'\n    return {REPORT!r}\n"
    ended = llm("--functions", code, "--tools-debug", ABOUT_WEATHER)
    assert ended.returncode == 0, ended.stderr[-500:]
    assert "get_weather" in ended.stderr
    assert ended.stdout.strip()


def schema() -> None:
    fields = json.dumps({"type": "object", "properties": {"name": {"enum": ["red", "blue"]}}, "required": ["name"]})
    assert json.loads(said(HELLO, "--schema", fields))["name"] in {"red", "blue"}


def picture() -> None:
    names_red(said(ABOUT_PICTURE, "-a", str(PICTURE)))


def unknown_model() -> None:
    told(llm(HELLO, settings=SETTINGS.replace('model_name: "demo"', f'model_name: "{NO_MODEL}"')), NO_MODEL)


def wrong_key() -> None:
    told(llm(HELLO, key=WRONG_KEY), "API key")


run(
    chat=chat,
    stream=stream,
    tools=tools,
    schema=schema,
    picture=picture,
    unknown_model=unknown_model,
    wrong_key=wrong_key,
)
