"""`periscope caption`."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import PIL.Image
import pytest
from typer.testing import CliRunner

from periscope.cli.app import app
from periscope.cli.caption import Part, in_order
from periscope.core import CaptionedImage, ImagePart, JSONObject
from periscope.errors import ImageInvalid, PeriscopeError, ServerBusy
from tests.cli.process import ServeProcess, run_command
from tests.cli.stub import ALIVE, stub_server

cli = CliRunner()

SEEN = {"text": "A red circle.", "error": None, "width": 8, "height": 4, "captioner": "eyes"} | {
    "verbatim": "STOP",
    "block": "[Image 1: A red circle.]\nSTOP",
}
UNSEEN = SEEN | {"text": None, "error": "the captioner timed out", "block": "[Image 1: not read]"}


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    return [str(tmp_path / name) for name in ("a.png", "b.jpg")]


def answer(caption: object) -> bytes:
    return json.dumps({"captions": [caption]}).encode()


def test_one_picture_is_just_its_text(pictures: list[str], short_config: Path) -> None:
    """So that it can be piped."""
    with stub_server(ALIVE, answer(SEEN)) as server:
        ended = cli.invoke(app, ["caption", pictures[0], "--url", server.url, "--config", str(short_config)])
    assert (ended.exit_code, ended.stdout) == (0, "A red circle.\n")


def test_explain_shows_what_the_text_model_reads(pictures: list[str], short_config: Path) -> None:
    """The whole block, with the text in the picture; also where there is no caption."""
    for caption, block, code in ((SEEN, SEEN["block"], 0), (UNSEEN, UNSEEN["block"], 1)):
        with stub_server(ALIVE, answer(caption)) as server:
            common = ["--url", server.url, "--config", str(short_config)]
            ended = cli.invoke(app, ["caption", pictures[0], "--explain", *common])
        assert (ended.exit_code, ended.stdout) == (code, f"{block}\n")


def test_the_server_gets_a_picture_as_data_url(pictures: list[str], short_config: Path) -> None:
    """With the type that the file's name says, and the model if one was named."""
    with stub_server(ALIVE, answer(SEEN)) as server:
        common = ["--url", server.url, "--config", str(short_config)]
        cli.invoke(app, ["caption", pictures[0], *common])
        cli.invoke(app, ["caption", pictures[1], "--model", "tiny", *common])
        first, second = (json.loads(body) for body in server.received)
    assert first == {"model": None, "images": [f"data:image/png;base64,{base64.b64encode(b'a.png').decode()}"]}
    assert second == {"model": "tiny", "images": [f"data:image/jpeg;base64,{base64.b64encode(b'b.jpg').decode()}"]}


def test_several_pictures_stand_beside_their_names(pictures: list[str], short_config: Path) -> None:
    """One line each, in the order they were given."""
    with stub_server(ALIVE, answer(SEEN)) as server:
        ended = cli.invoke(app, ["caption", *pictures, "--url", server.url, "--config", str(short_config)])
    assert ended.stdout.splitlines() == [f"{name}: A red circle." for name in pictures]


def test_a_document_is_told_as_a_text_model_reads_it(tmp_path: Path, short_config: Path) -> None:
    """Its name and bytes go to the server; pages that nobody described are told on stderr, with exit code 1."""
    (tmp_path / "a.pdf").write_bytes(b"%PDF-")
    file, block = str(tmp_path / "a.pdf"), "[Document 1, a.pdf]\nTotal 17.40"
    for num_failed, code, stderr in ((0, 0, ""), (1, 1, f"{file}: 1 of its 2 pages or frames were not described\n")):
        told = {"captions": [], "files": [{"block": block, "num_images": 2, "num_failed": num_failed}]}
        with stub_server(ALIVE, json.dumps(told).encode()) as server:
            ended = cli.invoke(app, ["caption", file, "--url", server.url, "--config", str(short_config)])
            (body,) = server.received
        assert (ended.exit_code, ended.stdout, ended.stderr) == (code, f"{block}\n", stderr)
        data = f"data:application/pdf;base64,{base64.b64encode(b'%PDF-').decode()}"
        assert json.loads(body) == {"model": None, "files": [{"filename": "a.pdf", "file_data": data}]}


def test_a_picture_without_words_is_a_failure(pictures: list[str], short_config: Path) -> None:
    """Its reason on stderr, nothing on stdout, exit code 1."""
    with stub_server(ALIVE, answer(UNSEEN)) as server:
        ended = cli.invoke(app, ["caption", pictures[0], "--url", server.url, "--config", str(short_config)])
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr == f"{pictures[0]}: the captioner timed out\n"


def test_json_holds_every_file(pictures: list[str], short_config: Path) -> None:
    """One object with stable keys."""
    with stub_server(ALIVE, answer(SEEN)) as server:
        ended = cli.invoke(app, ["caption", *pictures, "--json", "--url", server.url, "--config", str(short_config)])
    told = json.loads(ended.stdout)
    assert told["server"] == server.url
    assert told["captions"] == [{"file": name, **SEEN} for name in pictures]


@pytest.mark.parametrize("error", [ImageInvalid("it is cut off"), ServerBusy("it is cut off")])
def test_a_picture_that_is_not_described_is_no_other_pictures_fault(error: PeriscopeError) -> None:
    """The others are described, in order, whoever comes first; one that is broken, or came at a bad time, says why."""

    async def describe(image: Part) -> CaptionedImage:
        if image.param == "1":
            raise error
        for _ in range(10 - int(image.param)):  # the first takes longest
            await asyncio.sleep(0)
        return CaptionedImage(image.url or "", None, 8, 4, "eyes")

    async def run() -> list[JSONObject]:
        images = [ImagePart(f"picture {i}", param=str(i)) for i in range(3)]
        return [said async for said in in_order(images, describe)]

    first, broken, last = asyncio.run(run())
    assert (first["file"], first["text"], last["text"]) == ("0", "picture 0", "picture 2")
    assert broken == {"file": "1", "text": None, "error": "it is cut off"} | dict.fromkeys(
        ("width", "height", "captioner", "verbatim", "block")
    )


def test_no_more_than_eight_are_under_way() -> None:
    """A folder of pictures neither floods the server nor waits one by one."""
    under_way, most = 0, 0

    async def describe(image: Part) -> CaptionedImage:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        for _ in range(5):
            await asyncio.sleep(0)
        under_way -= 1
        return CaptionedImage(image.url or "", None, 8, 4, "eyes")

    async def run() -> int:
        images = [ImagePart(f"picture {i}", param=str(i)) for i in range(30)]
        return len([said async for said in in_order(images, describe)])

    assert (asyncio.run(run()), most) == (30, 8)


@pytest.mark.parametrize("wrong", [b"{}", b"<html>", b'{"captions": []}', answer({"caption": "x"}), answer(None)])
def test_an_answer_of_another_shape_is_told(pictures: list[str], short_config: Path, wrong: bytes) -> None:
    """A server of another version ends in a sentence, not in a traceback."""
    with stub_server(ALIVE, wrong) as server:
        ended = cli.invoke(app, ["caption", pictures[0], "--url", server.url, "--config", str(short_config)])
    assert ended.exit_code == 1
    assert "another version" in ended.stderr


def test_a_missing_file_is_2_before_anything_happens(pictures: list[str], short_config: Path) -> None:
    """One wrong name among several: nothing is sent or loaded."""
    with stub_server(ALIVE, answer(SEEN)) as server:
        ended = cli.invoke(
            app, ["caption", pictures[0], "none.png", "--url", server.url, "--config", str(short_config)]
        )
        assert (ended.exit_code, server.received) == (2, [])
    assert "none.png" in ended.stderr


def test_a_model_without_a_captioner_is_told(pictures: list[str], short_config: Path, running: ServeProcess) -> None:
    """With and without a server: what to set, exit code 1; no model is loaded for nothing."""
    for extra in ([], ["--url", running.url]):
        ended = cli.invoke(app, ["caption", pictures[0], "--config", str(short_config), *extra])
        assert ended.exit_code == 1
        assert "tiny has no captioner" in ended.stderr
        assert "loading" not in ended.stderr


def test_the_demo_captioner_describes_with_and_without_a_server(tmp_path: Path) -> None:
    """The embedded pair: the same words from a server and from a captioner loaded here; a broken file is told.

    The text is read by a model, too: by the same captioner, under another name.
    """
    picture, broken, config = tmp_path / "a.png", tmp_path / "broken.png", tmp_path / "models.yaml"
    drawn = PIL.Image.new("RGB", (96, 64), "white")
    drawn.paste("red", (30, 20, 60, 50))
    drawn.save(picture)
    broken.write_bytes(b"no picture")
    config.write_text(
        "server: {port: 1}\nmodels:\n  - name: demo\n    local_path: embedded:text\n"
        "    capabilities: {vision_mode: proxy, vision_proxy: {model: eyes, reader: letters}}\n"
        "  - name: eyes\n    local_path: embedded:captioner\n    preload: true\n"
        "  - name: letters\n    local_path: embedded:captioner\n"
    )
    command = ["caption", str(picture), str(broken), "--json", "--config", str(config)]
    with ServeProcess("--config", str(config), "--port", "0") as server:
        server.wait_until_ready()
        served = cli.invoke(app, [*command, "--url", server.url])
        assert server.terminate() == 0
    own = run_command(*command)
    assert (served.exit_code, own.returncode) == (1, 1)
    seen, unseen = json.loads(own.stdout)["captions"]
    assert json.loads(served.stdout)["captions"][0] == seen
    assert (seen["width"], seen["height"], seen["captioner"], seen["error"]) == (96, 64, "eyes", None)
    assert "red" in seen["text"]
    assert f"[Text in image 1, read by letters:]\n{seen['verbatim']}\n" in seen["block"]
    assert "red" in seen["verbatim"]
    assert unseen["text"] is None
    assert f"{broken}: " in own.stderr
    assert "model demo" not in own.stderr  # captions need no text model
