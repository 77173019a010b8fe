"""The programs in examples/ run as they stand, on the demo pair."""

from __future__ import annotations

import io
import runpy
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.e2e import drawing
from tests.library.conftest import DEMO

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TOLD = {
    "chat.py": "Send me a picture",
    "stream.py": "and ask me about it.\nI am the Periscope demo model",
    "picture.py": "The circle is red.\nA medium red circle",
    "openai_sdk.py": "Hello!",
    "json_answer.py": "mood='",
    "tools.py": "-> done",
    "fix_screenshot.py": "ZeroDivisionError",
    "pdf.py": "The circle is blue.\n(pages and pictures described: 1)",
    "mcp_agent.py": "screen: screenshot -> done",
    "caption_folder.py": "Captions in captions.jsonl: 3, files skipped: 1",
}
OTHERS = {"fastapi_app.py"}
WITHOUT_ARGUMENTS = {"chat.py", "stream.py", "json_answer.py"}


@pytest.fixture(autouse=True)
def _usual_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo pair is what `Periscope()` finds."""
    (tmp_path / "models.yaml").write_text(DEMO)
    monkeypatch.setenv("PERISCOPE_CONFIG", str(tmp_path / "models.yaml"))


@pytest.mark.parametrize("name", TOLD)
def test_an_example_does_what_it_says(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It ends by itself, and prints what its reader expects."""
    monkeypatch.setattr("sys.argv", [name])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert TOLD[name] in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(TOLD.keys() - WITHOUT_ARGUMENTS))
def test_an_example_says_which_arguments_it_takes(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown option is a line about its usage, before a model is loaded."""
    monkeypatch.setattr("sys.argv", [name, "--no-such-option"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    told = capsys.readouterr()
    assert (end.value.code, told.out, "unrecognized arguments: --no-such-option" in told.err) == (2, "", True)


def test_an_app_answers_about_pictures() -> None:
    """Mistakes of its client are its client's."""
    app = runpy.run_path(str(EXAMPLES / "fastapi_app.py"))["app"]
    file = io.BytesIO()
    drawing.circle("blue").save(file, "PNG")
    with TestClient(app) as client:
        asked = {"question": "What colour is the circle?"}
        assert client.post("/describe", params=asked, content=file.getvalue()).json() == {
            "answer": "The circle is blue."
        }
        refused = client.post("/describe", content=b"no picture")
    assert (refused.status_code, "image" in refused.json()["detail"]) == (400, True)


def test_every_example_is_tried() -> None:
    """A new one needs its line here."""
    assert {file.name for file in EXAMPLES.glob("*.py")} == {*TOLD, *OTHERS}
