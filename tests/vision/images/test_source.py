"""What an image's address may be, and how a data: URL becomes bytes."""

from __future__ import annotations

import base64
import random
import re
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from periscope.core import ImagePart
from periscope.errors import ImageInvalid, ImageSourceRefused
from periscope.vision.images.limits import ImageLimits
from periscope.vision.images.source import fetch

LIMITS = ImageLimits(max_bytes=1000)
DATA = bytes(range(251, 256)) + b"picture"  # its base64 holds + and / and needs padding
BASE64 = base64.b64encode(DATA).decode()


def read(url: str, limits: ImageLimits = LIMITS) -> bytes:
    """Whatever the bytes are."""
    return fetch(part(url), limits, check_head=lambda _: None)


def part(url: str) -> ImagePart:
    return ImagePart(url, "messages[0].content[1]")


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png;base64,{BASE64}",
        f"data:;base64,{BASE64}",
        f"data:image/png;name=a.png;base64,{BASE64}",
        f"DATA:IMAGE/PNG;BASE64,{BASE64}",
        f"data:text/plain; base64,{BASE64}",
        f" \n data:image/png;base64, {BASE64[:5]}\r\n {BASE64[5:]}\t\n",
        f"data:image/png;base64,{BASE64.rstrip('=')}",
        f"data:image/png;base64,{base64.urlsafe_b64encode(DATA).decode()}",
        f"data:image/png;base64,{quote(BASE64, safe='')}",
    ],
)
def test_the_ways_clients_write_data_urls(url: str) -> None:
    """Case, media type, parameters, white space, padding, alphabet and percent-encoding do not matter."""
    assert read(url) == DATA


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=1000))
def test_bytes_come_back_as_they_were(data: bytes) -> None:
    """Whatever was encoded is what comes out."""
    assert read("data:;base64," + base64.b64encode(data).decode()) == data


@settings(deadline=None)
@given(st.text("AQ7+/-_= \n", max_size=12))
def test_a_payload_is_base64_as_a_whole_or_not_at_all(payload: str) -> None:
    """Digits of either alphabet with white space anywhere, then padding of any length; never one digit too many."""
    digits = re.sub(r"\s", "", payload.rstrip("= \n")).replace("-", "+").replace("_", "/")
    if not digits or "=" in digits or len(digits) % 4 == 1:
        with pytest.raises(ImageInvalid):
            read(f"data:;base64,{payload}")
    else:
        assert read(f"data:;base64,{payload}") == base64.b64decode(digits + "==")


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,####SECRET",
        "data:image/png;base64,SECRET=SECRET",
        "data:image/png;base64,SECRE\N{LATIN SMALL LETTER E WITH ACUTE}",
        "data:image/png;base64,SECRE\ud800",
        "data:image/png;base64,%ZZSECRET",
        "data:image/png;base64,SECRETSEC",
        "data:image/png;base64,",
        "data:image/png;base64,====",
        "data:image/png,SECRET",
        "data:SECRET",
        "data:" + "SECRET" * 100 + ";base64,AAAA",
        "data:",
    ],
)
def test_broken_data_urls_name_the_field_and_nothing_of_the_payload(url: str) -> None:
    """A payload that is no base64 is the client's to mend; the message and its cause never repeat it."""
    with pytest.raises(ImageInvalid) as caught:
        read(url)
    assert caught.value.param == "messages[0].content[1]"
    assert "messages[0].content[1]" in caught.value.message
    assert "SECRE" not in caught.value.message
    assert caught.value.__cause__ is None


def test_too_many_bytes_name_limit_value_and_fix() -> None:
    """The size is known before anything is decoded, and the message says what to do."""
    url = "data:;base64," + base64.b64encode(bytes(1003)).decode()
    with pytest.raises(ImageInvalid, match=r"1,003 bytes; at most 1,000 .*`max_image_bytes`.*smaller"):
        read(url)
    assert len(read("data:;base64," + base64.b64encode(bytes(1000)).decode())) == 1000


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:1/SECRET.png", "`server.remote_images.enabled`"),
        ("HTTPS://user:SECRET@example.com/a.png", "`server.remote_images.enabled`"),
        ("file:///etc/SECRET", "`file:`"),
        ("File:/etc/SECRET", "`file:`"),
        ("ftp://SECRET", "`ftp:`"),
        ("blob:SECRET", "`blob:`"),
        ("javascript:SECRET", "`javascript:`"),
        ("averyveryverylongscheme:SECRET", "Paths are never read"),
        ("/etc/SECRET", "Paths are never read"),
        ("C:\\SECRET.png", "Paths are never read"),
        ("~/SECRET.png", "Paths are never read"),
        ("../SECRET.png", "Paths are never read"),
        ("//SECRET/a.png", "Paths are never read"),
        ("", "no data: URL"),
        ("/9j/4AAQSkZJRgSECRET", "Put `data:image/png;base64,` in front"),
        ("iVBORw0KGgoSECRET", "Put `data:image/png;base64,` in front"),
        ("AAAAJGZ0eXBoZWljSECRET", "Put `data:image/png;base64,` in front"),
    ],
)
def test_every_other_address_is_refused(url: str, says: str) -> None:
    """No file is opened and no connection made; the message says what to send and repeats no address."""
    with pytest.raises(ImageSourceRefused) as caught:
        read(url)
    assert says in caught.value.message
    assert "data:" in caught.value.message
    assert "SECRET" not in caught.value.message
    assert "`messages[0].content[1]`" in caught.value.message
    assert caught.value.param == "messages[0].content[1]"


@pytest.mark.parametrize("num_bytes", [3 * 2**20 - 1, 3 * 2**20, 3 * 2**20 + 1])
def test_a_large_picture_is_read_in_slices_as_it_is(num_bytes: int) -> None:
    """Wherever the slices end, with line ends as mail programs put them."""
    data = random.Random(num_bytes).randbytes(num_bytes)
    lines = base64.encodebytes(data).decode()
    assert read(f"data:image/png;base64,{lines}", ImageLimits()) == data


@pytest.mark.parametrize("place", [0, 1, 2**20 - 1, 2**20, 2**20 + 2, 3 * 2**20 - 1])
@pytest.mark.parametrize("unusual", [" ", "\r\n", "\t\n ", "\f\v"])
def test_white_space_anywhere_shifts_nothing(place: int, unusual: str) -> None:
    """One slice that is no multiple of four is followed by others that are."""
    data = random.Random(place).randbytes(9 * 2**18 - 1)
    encoded = base64.b64encode(data).decode()
    for payload in (encoded, encoded.translate(str.maketrans("+/", "-_"))):
        assert read(f"data:;base64,{payload[:place]}{unusual}{payload[place:]}", ImageLimits()) == data


def test_padding_inside_is_no_base64_wherever_a_slice_ends() -> None:
    """Two pictures one after the other are not taken for one."""
    whole = "A" * (2**20 - 2) + "=="
    with pytest.raises(ImageInvalid, match="not valid base64"):
        read(f"data:image/png;base64,{whole}{whole}", ImageLimits())


class _NoImageError(Exception):
    """What the check of a head raises here."""


@pytest.mark.parametrize("before", ["", "AAAA" + " " * 3 * 2**20], ids=["at once", "after much white space"])
def test_the_head_is_checked_before_the_rest_is_decoded(before: str) -> None:
    """What begins no image is refused for that, though its end, 16 MiB further on, is no base64 at all."""
    heads = []

    def refuse(head: bytes) -> None:
        heads.append(head)
        raise _NoImageError

    with pytest.raises(_NoImageError):
        fetch(part(f"data:;base64,{before}{'QUJD' * 2**22}####"), ImageLimits(), check_head=refuse)
    assert len(heads) == 1
    assert heads[0].endswith(b"ABC" * 300)
    assert len(heads[0]) < 2**20


@pytest.mark.parametrize("data", [b"G", b"GIF89a" + bytes(1018), bytes(1024), bytes(1025), bytes(2**21)], ids=len)
def test_the_head_of_a_good_picture_is_looked_at_once_and_kept(data: bytes) -> None:
    """A short file is its own head; of a long one the rest follows behind it."""
    heads = list[bytes]()
    url = "data:;base64," + base64.b64encode(data).decode()
    assert fetch(part(url), ImageLimits(), check_head=heads.append) == data
    assert len(heads) == 1
    assert len(heads[0]) >= min(len(data), 1024)
    assert data.startswith(heads[0])
