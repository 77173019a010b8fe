"""Addresses of pictures, and the many ways to spell them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.errors import ConfigError, ImageSourceRefused
from periscope.remote.picture_url import allowed_host, parse_picture_url


@pytest.mark.parametrize(
    ("url", "host", "port", "authority"),
    [
        ("http://Example.COM/a.png", "example.com", 80, "example.com"),
        ("HTTPS://example.com./a.png?x=1#f", "example.com", 443, "example.com"),
        ("https://example.com:8443/", "example.com", 8443, "example.com:8443"),
        ("http://[2606:4700::1111]/", "2606:4700::1111", 80, "[2606:4700::1111]"),
        ("http://bücher.example/", "xn--bcher-kva.example", 80, "xn--bcher-kva.example"),
        ("http://@example.com/", "example.com", 80, "example.com"),
        ("http://127.0.0.1:80/", "127.0.0.1", 80, "127.0.0.1"),
    ],
)
def test_what_an_address_means(url: str, host: str, port: int, authority: str) -> None:
    """One spelling of the host, whatever the client's, is what is checked and what is connected to."""
    parsed = parse_picture_url(url, "p")
    assert (parsed.host, parsed.port, parsed.authority) == (host, port, authority)


@pytest.mark.parametrize(
    "url",
    [
        *("http://user:SECRET@example.com/", "http://SECRET@example.com/"),
        *("http://2130706433/", "http://0x7f000001/", "http://017700000001/", "http://127.1/", "http://0x7f.0.0.1/"),
        *("http://127.0.0.1.0x0/", "http://a.127/", "http:///a", "http://", "http://[::1", "http://[fe80::1%25en0]/"),
        *("http://example.com:0/", "http://example.com:99999/", "http://exa mple.com/", "ftp://example.com/"),
        *("http:/127.0.0.1/", "http:127.0.0.1/", "http:\\\\127.0.0.1/", "https:"),
        *("http://./", "http://[::1]:x/", "http://" + "a" * 5000, "http://%31%32%37.0.0.1/", "gopher://example.com/"),
    ],
)
def test_what_is_refused_by_its_spelling(url: str) -> None:
    """User names, numbers in disguise and broken addresses are refused before any name is resolved."""
    with pytest.raises(ImageSourceRefused) as caught:
        parse_picture_url(url, "messages[0].content[1]")
    assert "SECRET" not in caught.value.message
    assert caught.value.param == "messages[0].content[1]"


@given(st.text(max_size=60), st.sampled_from(["http://", "https://", "http://[", "http://127.0.0.1@", ""]))
def test_any_text_is_parsed_or_refused(text: str, start: str) -> None:
    """No spelling raises anything else, and what is parsed parses to the same again."""
    try:
        parsed = parse_picture_url(start + text, "p")
    except ImageSourceRefused:
        return
    assert parse_picture_url(f"{parsed.scheme}://{parsed.authority}{parsed.target}", "p") == parsed


def test_hosts_that_are_allowed_by_name() -> None:
    """A host, with or without a port; anything else names the setting."""
    assert allowed_host("NAS.local") == ("nas.local", None)
    assert allowed_host("[fd00::5]:81") == ("fd00::5", 81)
    for entry in ("http://nas", "nas:0", "*", "127.1", "a@b"):
        with pytest.raises(ConfigError, match="allow_hosts"):
            allowed_host(entry)
