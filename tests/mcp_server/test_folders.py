"""Which files a client of the MCP server may have read."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from periscope.errors import ImageInvalid, ImageSourceRefused
from periscope.mcp_server import AllowedFolders
from periscope.mcp_server.folders import MAX_FILE_BYTES
from tests.e2e.drawing import circle, data_url


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    """A folder with a picture, beside one with a secret."""
    folder = tmp_path / "allowed"
    (folder / "deep er").mkdir(parents=True)
    (folder / "deep er" / "a.png").write_bytes(b"picture")
    (tmp_path / "allowed too").mkdir()
    (tmp_path / "allowed too" / "secret.png").write_bytes(b"secret")
    return folder


def test_a_file_below_an_allowed_folder_is_read(allowed: Path) -> None:
    """By its path, a path from the folder on, or a URL; and URLs go to the server as they are."""
    file = allowed / "deep er" / "a.png"
    data = f"data:image/png;base64,{base64.b64encode(b'picture').decode()}"
    for source in (str(file), "deep er/a.png", file.as_uri(), f"{allowed}/deep er/../deep er/a.png"):
        assert AllowedFolders([allowed]).image(source).url == data
    assert AllowedFolders([]).image(str(file), [allowed.as_uri()]).url == data
    for url in ("data:image/png;base64,AAAA", "https://example.com/a.png"):
        assert AllowedFolders([]).image(url).url == url


def test_a_file_elsewhere_is_refused(allowed: Path) -> None:
    """Also one behind a link, behind `..`, in a folder whose name begins alike, and one that does not exist."""
    outside = allowed.parent / "allowed too" / "secret.png"
    (allowed / "link.png").symlink_to(outside)
    (allowed / "folder").symlink_to(outside.parent)
    sources = (
        *(str(outside), str(outside.parent / "nothing.png"), outside.as_uri(), "link.png", str(allowed / "link.png")),
        *("folder/secret.png", "../allowed too/secret.png", f"{allowed}/../allowed too/secret.png", "/etc/passwd"),
        "~/.ssh/id_ed25519",
    )
    for source in sources:
        with pytest.raises(ImageSourceRefused, match="outside of the folders") as refused:
            AllowedFolders([allowed]).image(source)
        assert refused.value.param == "image"
        assert str(allowed) in refused.value.message
    with pytest.raises(ImageSourceRefused, match="--allow"):
        AllowedFolders().image(str(allowed / "deep er" / "a.png"))
    with pytest.raises(ImageSourceRefused):
        AllowedFolders().image("a.png", ["https://example.com/", "file://elsewhere/"])


def test_what_cannot_be_read_says_why(allowed: Path) -> None:
    """A folder, a pipe, links in a circle, a huge file, no file, other schemes: never a wait, never a traceback."""
    os.mkfifo(allowed / "pipe.png")
    (allowed / "circle.png").symlink_to(allowed / "circle.png")
    with (allowed / "huge.png").open("wb") as huge:
        huge.truncate(MAX_FILE_BYTES + 1)
    for source, reason in {
        "deep er": "cannot be read|not a file",
        "pipe.png": "not a file",
        "circle.png": "cannot be|no file",
        "huge.png": "64 MiB",
        "none.png": "no file",
        "": "names nothing",
        "a\0b": "names nothing",
        "ftp://example.com/a.png": "begins with ftp://",
        "file://elsewhere/a.png": "this machine",
        "file://[": "no URL",
        "x" * 5000: "cannot be",
    }.items():
        with pytest.raises(ImageInvalid, match=reason):
            AllowedFolders([allowed]).image(source)


def test_an_image_may_be_bare_base64() -> None:
    """As models and hosts write it that know of no data: URLs; of a picture only, so that no path is taken for one."""
    encoded = data_url(circle("red")).partition(",")[2]
    assert AllowedFolders().image(encoded).url == f"data:application/octet-stream;base64,{encoded}"
    jpeg = data_url(circle("red"), "JPEG").partition(",")[2]
    assert AllowedFolders().image(f" {jpeg}\n").url.endswith(jpeg)
    with pytest.raises(ImageSourceRefused):
        AllowedFolders().image("/9j/pictures/a.png")
