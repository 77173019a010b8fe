"""`make fuzz-api`: schemathesis reads `/openapi.json` of a real server and calls every route in all ways it describes.

    python -m tests.fuzz.api [--max-examples N] ...       # arguments go to schemathesis

No answer may be a 5xx, or have a status, a media type or a shape that is not in the document.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.conftest import start_server

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
#: They end the server, never end themselves, or would fetch from the hub.
LEFT_OUT = ("/api/server/shutdown", "/api/events", "/api/downloads")
#: An answer of the demo model fills its context in less, on a busy machine, too.
PATIENCE_S = 60
#: Names that the server knows, and one that it does not: with invented names alone nothing but a 404 would come back.
MODELS = {"type": "string", "enum": ["demo", "default", "demo-captioner", "nobody"]}


def main() -> int:
    """The exit status of schemathesis, or 1 if the server did not survive it."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PERISCOPE_HOME"] = folder
        server = start_server(log=Path(folder) / "server.log")
        try:
            status = _tried(server.url, Path(folder))
        finally:
            ended = server.stop()
        return ended or status


def _tried(url: str, folder: Path) -> int:
    """The exit status of schemathesis."""
    document = folder / "openapi.json"
    document.write_text(json.dumps(_with_names(httpx.get(f"{url}/openapi.json", timeout=PATIENCE_S).json())))
    program = Path(sys.executable).with_name("schemathesis")
    command = [str(program), "run", str(document), "--url", url, "--checks", CHECKS]
    command += ["--phases", "examples,coverage,fuzzing", "--request-timeout", str(PATIENCE_S), "--workers", "1"]
    command += ["--continue-on-failure", *(part for path in LEFT_OUT for part in ("--exclude-path", path))]
    return subprocess.run([*command, *sys.argv[1:]], check=False, cwd=folder).returncode  # noqa: S603


def _with_names(document: dict[str, Any]) -> dict[str, Any]:
    """The document, whose models and answers' lengths are of this server's."""
    for name, schema in document["components"]["schemas"].items():
        properties = schema.get("properties", {})
        if name.endswith(("Wire", "Command")) and "model" in properties:
            properties["model"] = MODELS
        for field in ("max_tokens", "max_completion_tokens"):
            if field in properties:
                properties[field] = {"type": "integer", "minimum": 1, "maximum": 64}
    for path, operations in document["paths"].items():
        for parameter in (each for operation in operations.values() for each in operation.get("parameters", ())):
            if parameter["name"] == "name" and "models" in path:
                parameter["schema"] = MODELS
    return document


if __name__ == "__main__":
    sys.exit(main())
