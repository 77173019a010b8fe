"""Where a server is."""

from __future__ import annotations

import pytest

from periscope.errors import ConfigError
from periscope.remote import Endpoint


@pytest.mark.parametrize(
    ("base_url", "path", "url"),
    [
        ("http://h:8000/v1", "models", "http://h:8000/v1/models"),
        ("http://h:8000/v1/", "models", "http://h:8000/v1/models"),
        ("https://h/openai/v1", "chat/completions", "https://h/openai/v1/chat/completions"),
        ("http://h/prefix/v1", "../api/captions", "http://h/prefix/api/captions"),
        ("http://[::1]:8000/v1", "models", "http://[::1]:8000/v1/models"),
    ],
)
def test_paths_are_relative_to_the_base_url(base_url: str, path: str, url: str) -> None:
    """With or without a slash at its end, and behind a proxy's prefix."""
    assert Endpoint(base_url).url_of(path) == url


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "h:8000",
        "127.0.0.1:8000/v1",
        "http://",
        "ftp://h/v1",
        "http://h:99999/v1",
        "http://u:sesame@h/v1",
        "http://h/v1?k=1",
    ],
)
def test_what_is_no_base_url_is_refused(base_url: str) -> None:
    """When it is configured, not at the first request; a password in it is not repeated."""
    with pytest.raises(ConfigError) as refused:
        Endpoint(base_url)
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize("key", ["", "sesame\nx: y", "sesam\u00e9", " sesame"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    """And is not repeated, neither in the message nor in the repr."""
    with pytest.raises(ConfigError) as refused:
        Endpoint("http://h/v1", key)
    assert "sesam" not in str(refused.value)
    assert "sesame" not in repr(Endpoint("http://h/v1", "sesame"))
