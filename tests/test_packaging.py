"""What users install: the product, and nothing that was only needed to make it."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_wheel_holds_the_product_alone() -> None:
    """One package and its models.yaml; the recipes of the demo pair stay in the repository."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["packages"] == ["backend/periscope"]
    assert build["force-include"] == {"models.yaml": "periscope/models.yaml"}
    assert not list((ROOT / "backend/periscope/demo").glob("[!_]*.py"))
