"""Captions outlive the server: a conversation goes on after a restart as if there had been none."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.cli.process import new_home, run_command
from tests.e2e.conftest import RunningServer, start_server
from tests.e2e.drawing import circle, picture, square, user

CONFIG = """\
caption_cache: {path: captions.sqlite3}
prompt_cache: {path: prompts, write_after: 0}
models:
- name: demo
  local_path: embedded:text
  params: {temperature: 0}
  capabilities: {vision_mode: proxy, vision_proxy: {model: eyes, max_images: 2}}
- name: eyes
  local_path: embedded:captioner
"""


@contextmanager
def life_of(config: Path, home: str | None = None) -> Iterator[tuple[RunningServer, httpx.Client]]:
    """One life of a server, which ends by a kill. `home`: its PERISCOPE_HOME, if it is to find what another left."""
    changes = {"PERISCOPE_CAPTION_CACHE__PERSIST": "true", "PERISCOPE_HOME": home or new_home()}
    changes["PERISCOPE_PROMPT_CACHE__PERSIST"] = "true"
    server = start_server(config, log=config.with_suffix(".log"), changes=changes)
    try:
        with httpx.Client(base_url=server.url, timeout=120) as client:
            yield server, client
    finally:
        server.process.kill()
        server.process.wait(60)
        server.reading.join(60)


def said(client: httpx.Client, messages: list[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    reply = client.post("/v1/chat/completions", json={"messages": messages})
    assert reply.status_code == 200, reply.text
    body = reply.json()
    return body["choices"][0]["message"]["content"], {**body["usage"], **body["periscope"]["vision"]}


def commanded(server: str, config: Path, *arguments: str) -> dict[str, Any]:
    ended = run_command("captions", *arguments, "--url", server, "--config", str(config), "--json")
    assert ended.returncode == 0, ended.stderr
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


def captions_on_disk(client: httpx.Client) -> list[tuple[str, str, float]]:
    """What is kept, once all of it is written."""
    while (told := client.get("/api/captions").json())["stats"]["file"]["num_unwritten"]:
        pass
    return sorted((each["key"], each["text"], each["created_at"]) for each in told["captions"])


def test_a_restart_leaves_the_prompt_byte_identical(tmp_path: Path) -> None:
    """Also after a kill, and with a picture that was left out: no picture is described again, none changes its words.

    Both models are greedy, so that the answer and the number of its prompt's tokens give away a changed prompt.
    """
    config = tmp_path / "models.yaml"
    config.write_text(CONFIG)
    shown = picture(circle("red", 120))
    chat = [user("What is there?", picture(circle("green", 80)), picture(square("blue", 90)), shown)]
    with life_of(config) as (_, client):
        answer, first = said(client, chat)
        assert (first["num_images"], first["num_cache_hits"], first["num_failed"]) == (3, 0, 1)
        kept = captions_on_disk(client)
    with life_of(config) as (server, client):
        again, second = said(client, chat)
        assert (again, second["prompt_tokens"]) == (answer, first["prompt_tokens"])
        assert (second["num_cache_hits"], second["num_failed"], second["num_caption_tokens"]) == (2, 1, 0)
        assert captions_on_disk(client) == kept
        chat += [{"role": "assistant", "content": answer}, user("And here?", picture(circle("blue", 70)))]
        _, third = said(client, chat)
        assert (third["num_cache_hits"], third["num_failed"]) == (2, 1)

        key = f"caption/{hashlib.sha256(_file_of(shown)).hexdigest()}"
        (caption,) = commanded(server.url, config, "show", key)["captions"]
        assert "red" in caption["text"]
        stats = commanded(server.url, config, "stats")
        new = {key for key, *_ in captions_on_disk(client)} - {key for key, *_ in kept}
        made = [key for key in new if not key.startswith("left-out/")]  # a caption, and a text if there is a reader
        assert (stats["num_misses"], stats["file"]["state"]) == (len(made), "open")
        flushed = commanded(server.url, config, "flush")
        assert (flushed["server"], flushed["is_written"]) == (server.url, True)
        assert flushed["flushed"] == stats["num_entries"]
        assert captions_on_disk(client) == []


def _file_of(part: dict[str, Any]) -> bytes:
    """The bytes of a picture that a message holds."""
    return base64.b64decode(part["image_url"]["url"].partition(",")[2])


def test_a_response_is_gone_on_from_after_a_restart(tmp_path: Path) -> None:
    """With its picture and its caption, so that the prompt is the same; the kill loses nothing."""
    config = tmp_path / "models.yaml"
    config.write_text(CONFIG)
    shown = {"type": "input_image", "image_url": picture(circle("red"))["image_url"]["url"]}
    first: dict[str, Any] = {"input": [{"role": "user", "content": [shown]}]}
    home = new_home()
    told = []
    for life in range(2):
        with life_of(config, home) as (_, client):
            if life == 0:
                first = client.post("/v1/responses", json=first).json()
                assert client.get(f"/v1/responses/{first['id']}").json()["output"] == first["output"]
            asked = {"input": "What is it?", "previous_response_id": first["id"]}
            told.append(client.post("/v1/responses", json=asked).json())
    before, after = told
    assert after["output"][0]["content"] == before["output"][0]["content"]
    assert after["usage"]["input_tokens"] == before["usage"]["input_tokens"]
    assert after["periscope"]["vision"]["num_cache_hits"] == 1


#: Longer than what is worth a file.
PREAMBLE = "You are an agent with many rules. " + " ".join(f"Rule {number} is to be kept." for number in range(60))


def prompt_cache_of(client: httpx.Client) -> dict[str, int]:
    (model,) = (each for each in client.get("/api/status").json()["models"] if each["id"] == "demo")
    told: dict[str, int] = model["prompt_cache"]
    return told


def cached(client: httpx.Client, *messages: dict[str, Any]) -> tuple[str, int, int]:
    """The answer, the tokens of its prompt, and how many of them were not computed."""
    body: dict[str, Any] = {"messages": [{"role": "system", "content": PREAMBLE}, *messages], "max_tokens": 8}
    reply = client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    told = reply.json()
    usage = told["usage"]
    answer: str = told["choices"][0]["message"]["content"]
    return answer, usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]


def test_an_agent_s_preamble_survives_a_kill_a_stop_and_an_unload(tmp_path: Path) -> None:
    """What was written when the server was idle, or as it stopped, is not computed again: `cached_tokens` tells it."""
    config = tmp_path / "models.yaml"
    config.write_text(CONFIG)
    with life_of(config) as (_, client):
        first, num_prompt_tokens, num_cached = cached(client, user("Hello!"))
        assert num_cached == 0
        while not prompt_cache_of(client)["disk_bytes"]:
            pass
        assert prompt_cache_of(client)["written_bytes"] == prompt_cache_of(client)["disk_bytes"]
    with life_of(config) as (server, client):  # the life before was ended by a kill
        again = cached(client, user("Hello!"))
        assert (again[0], again[1]) == (first, num_prompt_tokens)
        assert again[2] == num_prompt_tokens - 1
        assert prompt_cache_of(client)["written_bytes"] == 0
        other = cached(client, user("Another conversation of the same agent"))
        assert other[2] >= num_prompt_tokens - 20
        client.post("/api/models/unload", json={"model": "demo", "wait": True})
        unloaded = cached(client, user("Another conversation of the same agent"))
        assert unloaded[0] == other[0]
        assert unloaded[2] >= num_prompt_tokens - 20
        long = {"role": "user", "content": "And now for something longer. " * 80}
        longer = cached(client, long)
        assert server.stop() == 0
    with life_of(config) as (_, client):
        told = cached(client, long)
        assert (told[0], told[2]) == (longer[0], longer[1] - 1)
