"""What users install: the product, and nothing that was only needed to make it."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from periscope.service import BREW_LABEL
from periscope.service.plist import EXIT_TIMEOUT_S, THROTTLE_INTERVAL_S

ROOT = Path(__file__).resolve().parent.parent


def test_the_wheel_holds_the_product_alone() -> None:
    """One package and its models.yaml; the recipes of the demo pair stay in the repository."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["packages"] == ["backend/periscope"]
    assert build["force-include"] == {"models.yaml": "periscope/models.yaml"}
    assert not list((ROOT / "backend/periscope/demo").glob("[!_]*.py"))


def test_the_formula_is_of_this_package() -> None:
    """Its service is what `periscope service` would install, under the label that it looks for."""
    text = (ROOT / "launchd/periscope.rb.in").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert re.findall(r"@\w+@", text) == ["@HOMEPAGE@", "@URL@", "@SHA256@"]
    (name,) = re.findall(r"class (\w+) < Formula", text)
    assert f"homebrew.mxcl.{name.lower()}" == BREW_LABEL
    assert f'license "{project["license"]}"' in text
    extras = re.search(r"\[([\w,]+)\]\"", text)
    assert extras is not None
    assert set(extras[1].split(",")) <= project["optional-dependencies"].keys()
    service = text.split("service do")[1].split("  end")[0]
    for line in (
        'run [opt_bin/"periscope", "serve"]',
        "keep_alive successful_exit: false",  # `true` would start a server again that ended on purpose
        "process_type :interactive",
        f"throttle_interval {THROTTLE_INTERVAL_S}",
        f"stop_timeout {EXIT_TIMEOUT_S}",
    ):
        assert f"\n    {line}\n" in service


def test_the_formula_reads_as_homebrew_wants_it() -> None:
    """What `brew style` and `brew audit` ask for, as far as a text shows it: order, quotes, spaces, the description."""
    text = (ROOT / "launchd/periscope.rb.in").read_text()
    order = ["desc ", "homepage ", "url ", "sha256 ", "license ", "depends_on ", "def install", "service do", "test do"]
    places = [text.index(f"\n  {each}") for each in order]
    assert places == sorted(places)
    depends = re.findall(r"depends_on \"?(\w+)", text)
    assert depends == sorted(depends)
    description = re.findall(r'desc "(.*)"', text)[0]
    assert len(f"periscope: {description}") <= 80
    assert not re.match(r"(?i)(a|an|the|periscope)\b", description)
    assert description[0].isupper()
    assert not description.endswith(".")
    for line in text.splitlines():
        assert len(line) <= 118
        assert line == line.rstrip()
        assert "'" not in line.split("#")[0]
        assert (len(line) - len(line.lstrip())) % 2 == 0


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_formula_is_filled_in_for_a_release(tmp_path: Path) -> None:
    """With the digest of the archive; without an archive it is said what is missing."""
    archive = tmp_path / "v1.tar.gz"
    archive.write_bytes(b"sources")
    command = ["make", "-s", "-C", str(ROOT), "formula", f"DIST={tmp_path}", "HOMEPAGE=https://example.com"]
    given = ["URL=https://example.com/v1.tar.gz", f"ARCHIVE={archive}"]
    subprocess.run([*command, *given], check=True, capture_output=True)  # noqa: S603
    text = (tmp_path / "periscope.rb").read_text()
    assert f'sha256 "{hashlib.sha256(b"sources").hexdigest()}"' in text
    assert 'url "https://example.com/v1.tar.gz"' in text
    assert "@" not in re.sub(r"python@3", "", text)
    assert subprocess.run(command, check=False, capture_output=True).returncode == 2  # noqa: S603
