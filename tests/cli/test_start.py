"""What a server does not import before it needs it: the start is quick, and an idle server small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.process import TIMEOUT_S, environment, new_home

#: Runs `periscope serve` until both models of the embedded pair are loaded; tells what was imported when.
PROGRAM = """
import gc, json, logging, os, signal, sys

seen, usual = {}, gc.get_threshold()

class Watch(logging.Handler):
    def emit(self, record):
        line = record.getMessage()
        if line.startswith("listening on"):
            seen["listening"] = sorted(sys.modules)
        if "ready after" in line:
            seen["ready"] = sorted(sys.modules)
            seen["loaded"] = seen.get("loaded", 0) + 1
        if seen.get("loaded") == 2 and not seen.get("told"):
            seen["told"] = True
            os.kill(os.getpid(), signal.SIGTERM)

logging.getLogger("periscope.cli.serve").addHandler(Watch())
from periscope.cli.app import app
try:
    app(["serve", "--port", "0", "--config", sys.argv[1]])
except SystemExit as end:
    seen["code"] = end.code
seen["collector"] = gc.get_threshold() == usual
print(json.dumps(seen))
"""
PAIR = """
models:
- name: text
  local_path: "embedded:text"
  preload: true
  capabilities: {vision_mode: proxy, vision_proxy: {model: captioner}}
- {name: captioner, local_path: "embedded:captioner", preload: true}
"""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Modules by moment."""
    config = tmp_path_factory.mktemp("start") / "models.yaml"
    config.write_text(PAIR)
    ended = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", PROGRAM, str(config)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env=environment({"PERISCOPE_HOME": new_home()}),
    )
    seen = json.loads(ended.stdout.splitlines()[-1])
    assert seen["code"] == 0, ended.stderr
    assert seen["collector"], "Python's collector was not set back"
    return {moment: seen[moment] for moment in ("listening", "ready")}


def test_a_server_listens_before_anything_heavy_is_imported(started: dict[str, list[str]]) -> None:
    """Clients can connect while HTTP, MLX and the model libraries are still to come."""
    heavy = {"mlx", "numpy", "huggingface_hub", "transformers", "starlette", "uvicorn", "httpx", "rich", "PIL"}
    assert not heavy & set(started["listening"])
    assert not {"periscope.api", "periscope.runtime", "periscope.engine"} & set(started["listening"])


def test_a_ready_server_has_imported_what_it_runs_on(started: dict[str, list[str]]) -> None:
    """So that the other promises are about a server that works."""
    assert {"mlx_lm", "mlx_vlm", "transformers", "starlette", "uvicorn"} <= set(started["ready"])


def test_an_idle_server_has_imported_nothing_that_it_may_never_need(started: dict[str, list[str]]) -> None:
    """No client for other servers, nothing that draws, no OCR, documents, OpenAPI, grammars or readers of pictures.

    The first use imports each of them.
    """
    asked_for = {
        *("fastapi", "httpx", "stamina", "rich", "torch", "mcp", "openai", "opentelemetry", "jsonschema"),
        *("rapidocr", "onnxruntime", "cv2", "pypdfium2", "undoc", "bs4", "av", "scipy", "pandas", "psutil"),
        *("urllib3", "charset_normalizer", "requests.sessions", "sentencepiece._sentencepiece"),
        *("llguidance", "periscope.engine.structured.compiler", "periscope.engine.structured.schema_rewrites"),
        *("PIL.JpegImagePlugin", "PIL.PngImagePlugin", "PIL.TiffImagePlugin", "PIL._webp", "PIL._avif"),
        *("periscope.api.openapi.shapes", "periscope.api.openapi.own_shapes"),
        *("periscope.vision.documents.opening", "periscope.engine.isolated.engine", "periscope.api.responses.decode"),
        *("periscope.api.openapi.build", "periscope.remote.openai_client", "periscope.vision.backends.remote"),
    }
    assert not asked_for & set(started["ready"])


def test_an_import_structure_is_kept_for_the_next_start(tmp_path: Path) -> None:
    """In the folder of the state, which this user alone can look into."""
    config = tmp_path / "models.yaml"
    config.write_text(PAIR)
    home = tmp_path / "home"
    subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", PROGRAM, str(config)],
        capture_output=True,
        timeout=TIMEOUT_S,
        check=True,
        env=environment({"PERISCOPE_HOME": str(home)}),
    )
    (kept,) = home.rglob("imports.json")
    assert kept.parent.stat().st_mode & 0o777 == 0o700
