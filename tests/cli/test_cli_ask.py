"""`periscope ask`, against a running server and on its own."""

from __future__ import annotations

import asyncio
import io
import json
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from periscope.cli.app import app
from periscope.cli.ask import collect
from periscope.cli.exits import CommandFailed
from periscope.core import Finished, FinishReason, OutputEvent, ReasoningDelta, TextDelta, Usage, VisionUsage
from tests.cli.process import CommandProcess, ServeProcess, run_command
from tests.cli.stub import ALIVE, stub_server
from tests.config.files import PAIR
from tests.e2e.drawing import circle

cli = CliRunner()


def png() -> bytes:
    file = io.BytesIO()
    circle("red").save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(("num_failed", "told"), [(0, ""), (1, "1 of 2 pictures could not be described")])
def test_a_picture_that_the_model_learns_nothing_of_is_told(
    capsys: pytest.CaptureFixture[str], num_failed: int, told: str
) -> None:
    """Its answer may read as if there had been none."""

    async def events() -> AsyncGenerator[OutputEvent, None]:
        yield TextDelta("I see no picture.")
        yield Finished(FinishReason.STOP, Usage(1, 1), vision=VisionUsage(num_images=2, num_failed=num_failed))

    asyncio.run(collect(events(), is_shown=True))
    shown = capsys.readouterr()
    assert shown.out == "I see no picture.\n"
    assert shown.err.startswith(told)
    assert bool(shown.err) == bool(told)


def test_the_answer_is_shown_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    """Each piece is on stdout before the next one is there; reasoning is not part of the answer."""
    seen: list[str] = []

    async def events() -> AsyncGenerator[OutputEvent, None]:
        yield ReasoningDelta("hm")
        for piece in ("It is", " red."):
            yield TextDelta(piece)
            seen.append(capsys.readouterr().out)
        yield Finished(FinishReason.STOP, Usage(1, 2))

    answer = asyncio.run(collect(events(), is_shown=True))
    assert seen == ["It is", " red."]
    assert capsys.readouterr().out == "\n"
    assert (answer["answer"], answer["reasoning"], answer["finish_reason"]) == ("It is red.", "hm", "stop")


def test_an_answer_that_breaks_off_is_a_failure() -> None:
    """Half an answer never passes for a whole one."""

    async def events() -> AsyncGenerator[OutputEvent, None]:
        yield TextDelta("It is")

    with pytest.raises(CommandFailed, match="before it was complete"):
        asyncio.run(collect(events(), is_shown=False))


def test_a_running_server_answers(running: ServeProcess, short_config: Path) -> None:
    """The answer is the server's, the same with and without --json, and no model is loaded here."""
    common = ["ask", "Hi", "--url", running.url, "--config", str(short_config)]
    shown = cli.invoke(app, common)
    told = json.loads(cli.invoke(app, [*common, "--json", "--model", "tiny"]).stdout)
    assert shown.exit_code == 0
    assert shown.stderr == ""
    assert shown.stdout.rstrip("\n") == told["answer"].rstrip("\n")
    assert (told["server"], told["finish_reason"]) == (running.url, "length")
    assert told["usage"]["num_completion_tokens"] == 24
    assert told["vision"] is None


def test_a_question_can_come_from_stdin(running: ServeProcess, short_config: Path) -> None:
    """`-` reads it, so that it can be long."""
    common = ["--url", running.url, "--config", str(short_config), "--json"]
    piped = json.loads(cli.invoke(app, ["ask", "-", *common], input="Hi\n").stdout)
    plain = json.loads(cli.invoke(app, ["ask", "Hi", *common]).stdout)
    assert piped["answer"] == plain["answer"]


def test_what_is_piped_in_stands_with_the_question(running: ServeProcess, short_config: Path) -> None:
    """Text behind it, whatever bytes a log holds; a picture is shown; anything else is refused before it is sent."""
    common = ["--url", running.url, "--config", str(short_config), "--json"]
    plain = json.loads(cli.invoke(app, ["ask", "Why?\n\nError \ufffd 7", *common]).stdout)
    piped = json.loads(cli.invoke(app, ["ask", "Why?", *common], input=b"Error \xff 7\n").stdout)
    assert piped["usage"]["num_prompt_tokens"] == plain["usage"]["num_prompt_tokens"]
    assert piped["answer"] == plain["answer"]
    shown = cli.invoke(app, ["ask", "Why?", *common], input=png())
    assert (shown.exit_code, "image" in shown.stderr) == (1, True)  # this model is blind
    refused = cli.invoke(app, ["ask", "Why?", *common], input=b"\0\xff" * 9)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr == "What comes from stdin is neither text nor a picture that can be read.\n"


def test_a_system_prompt_comes_before_the_question(running: ServeProcess, short_config: Path) -> None:
    """`--system` makes the prompt longer by what it says."""
    common = ["ask", "Hi", "--url", running.url, "--config", str(short_config), "--json"]
    plain = json.loads(cli.invoke(app, common).stdout)
    longer = json.loads(cli.invoke(app, [*common, "--system", "Be brief."]).stdout)
    assert longer["usage"]["num_prompt_tokens"] >= plain["usage"]["num_prompt_tokens"] + len("Be brief.")


def test_an_unknown_model_is_4_with_and_without_a_server(running: ServeProcess, short_config: Path) -> None:
    """The same code and a list of the known ones."""
    common = ["ask", "Hi", "--model", "nope", "--config", str(short_config)]
    for extra in (["--url", running.url], []):
        ended = cli.invoke(app, [*common, *extra])
        assert ended.exit_code == 4
        assert "tiny" in ended.stderr
        assert ended.stdout == ""


def test_a_captioner_is_told_what_it_is_for_without_a_server(tmp_path: Path) -> None:
    """With the code of a model that cannot be asked, and the name of one that can."""
    config = tmp_path / "models.yaml"
    config.write_text(PAIR)
    ended = cli.invoke(app, ["ask", "Hi", "--model", "eyes", "--config", str(config)])
    assert (ended.exit_code, ended.stdout) == (4, "")
    assert ended.stderr == "Model eyes only describes pictures, for text models. Name a text model, such as words.\n"


def test_a_picture_for_a_blind_model_is_refused_in_one_sentence(
    running: ServeProcess, short_config: Path, tmp_path: Path
) -> None:
    """What the server says reaches stderr, exit code 1."""
    picture = tmp_path / "a.png"
    picture.write_bytes(b"not looked at")
    ended = cli.invoke(app, ["ask", "Hi", "-i", str(picture), "--url", running.url, "--config", str(short_config)])
    assert ended.exit_code == 1
    assert "vision_mode" in ended.stderr


@pytest.mark.parametrize("arguments", [["Hi", "--image", "no-such.png"], ["Hi", "--image", "."], [""]])
def test_what_cannot_be_read_is_2(arguments: list[str], short_config: Path) -> None:
    """A missing picture, a folder, an empty question: told before anything is loaded or sent."""
    ended = cli.invoke(app, ["ask", *arguments, "--config", str(short_config)])
    assert ended.exit_code == 2
    assert ended.stderr
    assert "loading" not in ended.stderr


def test_a_picture_that_a_server_refuses_is_named_by_its_file(short_config: Path, tmp_path: Path) -> None:
    """Not by its place in a request that nobody has seen: of two, behind a system prompt, it is the right one."""
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file in files:
        file.write_bytes(b"not looked at")
    said = {"message": "The image in `messages[1].content[1]` cannot be decoded.", "code": "invalid_image"}
    asked = ["ask", "Hi", "--system", "Be brief.", "-i", str(files[0]), "-i", str(files[1])]
    with stub_server(ALIVE, f"data: {json.dumps({'error': said})}\n\n".encode()) as stub:
        ended = cli.invoke(app, [*asked, "--url", stub.url, "--config", str(short_config)])
    assert (ended.exit_code, ended.stderr) == (1, f"The image in `{files[1]}` cannot be decoded.\n")


def test_an_address_is_no_picture(short_config: Path) -> None:
    """It is named as it was typed, with what to do."""
    ended = cli.invoke(app, ["ask", "Hi", "--image", "https://example.com/a.png", "--config", str(short_config)])
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("https://example.com/a.png is an address")
    assert "download it" in ended.stderr


def test_a_server_with_a_key_wants_it(short_config: Path, tmp_path: Path) -> None:
    """7 without the key; with the configured one it is answered."""
    keyed = tmp_path / "models.yaml"
    keyed.write_text(short_config.read_text().replace("port: 1", "port: 1, api_key: sesame"))
    with ServeProcess("--config", str(keyed), "--port", "0") as server:
        server.wait_until_ready()
        without = cli.invoke(app, ["ask", "Hi", "--url", server.url, "--config", str(short_config)])
        answered = cli.invoke(app, ["ask", "Hi", "--url", server.url, "--config", str(keyed)])
        assert server.terminate() == 0
    assert without.exit_code == 7
    assert "PERISCOPE_SERVER__API_KEY" in without.stderr
    assert "sesame" not in server.output
    assert answered.exit_code == 0


def test_without_a_server_the_model_is_loaded_here(running: ServeProcess, short_config: Path, tmp_path: Path) -> None:
    """The same answer as the server's; progress on stderr, the answer alone on stdout.

    What transformers finds in its own files is kept for the next command, which is there sooner.
    """
    served = json.loads(
        cli.invoke(app, ["ask", "Hi", "--url", running.url, "--config", str(short_config), "--json"]).stdout
    )
    changes = {"PERISCOPE_HOME": str(tmp_path)}
    ended = run_command("ask", "Hi", "--config", str(short_config), "--json", changes=changes)
    assert ended.returncode == 0, ended.stderr
    assert json.loads((tmp_path / "state/imports.json").read_text())["structures"]
    told = json.loads(ended.stdout)
    assert told["server"] is None
    for usage in (told["usage"], served["usage"]):
        del usage["num_cached_tokens"]  # the server has met the prompt before
    assert (told["answer"], told["usage"]) == (served["answer"], served["usage"])
    assert ended.stderr.splitlines()[0] == "model tiny: loading"
    assert "model tiny: ready" in ended.stderr


@pytest.mark.parametrize(
    ("source", "code", "told"),
    [
        ("local_path: broken", 1, "could not be loaded"),
        ("local_path: nowhere", 4, "There is no folder"),
        ("hf_id: nobody/no-such-model", 4, "is not on this disk"),
    ],
)
def test_a_model_that_cannot_load_here_is_told(source: str, code: int, told: str, tmp_path: Path) -> None:
    """The reason and its fix on stderr; one that is not on this disk is 4, as with a server."""
    file = tmp_path / "models.yaml"
    file.write_text(f"server: {{port: 1}}\nmodels:\n  - name: tiny\n    {source}\n")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("no JSON")
    ended = run_command("ask", "Hi", "--config", str(file))
    assert ended.returncode == code
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


def test_ctrl_c_ends_an_answer_with_130(endless_config: Path) -> None:
    """In the middle of an answer that would take minutes, without a traceback and without hanging at exit."""
    with CommandProcess("ask", "Hi", "--config", str(endless_config)) as asking:
        asking.wait_for(r"ready after .*\n.")
        asking.signal(signal.SIGINT)
        assert asking.wait() == 130, asking.output
        assert "Traceback" not in asking.output


def test_sigterm_ends_an_answer_in_the_background(endless_config: Path) -> None:
    """Where SIGINT is ignored, as after a shell's `&`, SIGTERM is what is left, and it works."""
    with CommandProcess("ask", "Hi", "--config", str(endless_config), on_sigint=signal.Handlers.SIG_IGN) as asking:
        asking.wait_for(r"ready after .*\n.")
        asking.signal(signal.SIGTERM)
        assert asking.wait() == -signal.SIGTERM, asking.output
        assert "Traceback" not in asking.output
