"""Origin headers and the patterns that let them in."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from periscope.core import AllowedOrigins, OriginPattern

PATTERNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "http://localhost:3000": (
        ("http://localhost:3000", "HTTP://LocalHost:3000"),
        ("https://localhost:3000", "http://localhost:30000", "http://localhost", "http://a.localhost:3000"),
    ),
    "http://localhost": (("http://localhost", "http://localhost:80"), ("http://localhost:3000", "https://localhost")),
    "https://a.example:443": (("https://a.example",), ("https://a.example:444", "http://a.example")),
    "http://localhost:*": (
        ("http://localhost", "http://localhost:1", "http://localhost:65535"),
        (
            *("http://localhost:1.evil.com", "http://localhost.evil.com:1", "http://localhost:1@evil.com"),
            *(
                "http://localhost:",
                "http://localhost:*",
                "http://localhost:a",
                "http://localhost:1/",
                "https://localhost",
            ),
            *(
                "http://localhost:123456",
                "http://localhost:1 ",
                "http://localhost:1,http://evil.com",
                "http://localhost:1?",
            ),
            *(
                "http://evil.com#http://localhost:1",
                "http://localhost\\.evil.com",
                "http:localhost",
            ),
        ),
    ),
    "http://[::1]:*": (("http://[::1]:3000", "http://[::1]"), ("http://[::2]:3000", "http://::1:3000")),
    "https://*.example.com": (
        ("https://a.example.com", "https://a.b.example.com"),
        ("https://example.com", "https://evilexample.com", "https://a.example.com.evil", "https://a.example.com:8443"),
    ),
    "https://*.example.com:*": (("https://a.example.com:8443",), ("http://a.example.com:8443",)),
    "http://*.localhost:*": (
        ("http://app.localhost:5173",),
        ("http://localhost:5173", "http://app.localhost.evil.com"),
    ),
    "https://*.lan": (("https://nas.lan",), ("https://lan", "https://nas.lan.com")),
    "vscode-webview://*": (("vscode-webview://1abc",), ("https://1abc",)),
    "*": (("http://any.example:81", "null", "", "nonsense"), ()),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_matches_what_it_says_and_no_more(pattern: str) -> None:
    """Scheme, host and port; a star stands for one of them, and never reaches into the next."""
    allowed = AllowedOrigins([pattern])
    matching, others = PATTERNS[pattern]
    assert [origin for origin in matching if origin not in allowed] == []
    assert [origin for origin in others if origin in allowed] == []


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("ipfs://bafy1", "ipfs://bafy1", "ipfs://bafy2"),
        ("ipfs://*.bafy1.name", "ipfs://a.bafy1.name", "ipns://a.bafy1.name"),
        ("ws://host:*", "ws://host:1", "wss://host:1"),
    ],
)
def test_any_scheme_can_be_named(pattern: str, matching: str, other: str) -> None:
    """Also those that are not let in unasked."""
    assert matching in AllowedOrigins([pattern])
    assert other not in AllowedOrigins([pattern])
    assert matching not in AllowedOrigins([])


@pytest.mark.parametrize(
    ("origin", "is_let_in"),
    [
        ("vscode-webview://1abc2def", True),
        ("vscode-file://vscode-app", True),
        ("app://obsidian.md", True),
        ("app://.", True),
        ("tauri://localhost", True),
        ("file://", True),
        ("capacitor://localhost", True),
        ("chrome-extension://abcdef", True),
        ("null", False),
        ("", False),
        ("app", False),
        ("app:", False),
        ("app:notes", False),
        ("app://a b", False),
        ("app://a, https://evil.example", False),
        ("http://app://x", False),
        ("http://tauri.localhost", False),
        ("https://tauri.localhost", False),
        ("http://localhost:3000", False),
        ("HTTPS://evil.example", False),
        ("ftp://evil.example", False),
        ("blob:https://evil.example", False),
        ("data://evil.example", False),
        ("ipfs://bafy1", False),
    ],
)
def test_only_apps_are_let_in_unasked(origin: str, is_let_in: bool) -> None:
    """A scheme that a program of this machine made up is none that a page from elsewhere can have."""
    assert (origin in AllowedOrigins([])) is is_let_in


@pytest.mark.parametrize(
    "useless",
    [
        *("", "localhost", "localhost:3000", "//localhost", "://localhost", "*://localhost", "null", "NULL", "**"),
        *("http://", "http://:80", "https:///", "http://localhost/x", "http://localhost//", "http://localhost?x"),
        *("http://local*", "http://*host", "http://a.*.com", "http://*.*.com", "http://*.", "http://*.com*"),
        *("http://localhost:0", "http://localhost:65536", "http://localhost:-1", "http://localhost:8*", "http://a:b"),
        *("http://localhost:", "http://u@localhost", "http://a b", "http://a,http://b", "http://b\u00fccher.example"),
        *("http://localhost:\u0661", "http://localhost:99999999999999999999", "http://[::1", "1http://a"),
    ],
)
def test_a_useless_pattern_is_refused(useless: str) -> None:
    """What no Origin header can ever be, or what means more than a person would think, has no place in the settings."""
    with pytest.raises(ValueError, match=r".{10}"):
        OriginPattern.parse(useless)


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("http://*", "pages of every host"),
        ("https://*", "pages of every host"),
        ("http://*:*", "pages of every host"),
        ("http://*:3000", "pages of every host"),
        ("ipfs://*", "pages of every host"),
        ("https://*.com", "every host under .com,"),
        ("HTTPS://*.COM:8443", "every host under .com,"),
        ("https://*.dev", "every host under .dev,"),
        ("https://*.co.uk", "every host under .co.uk,"),
        ("https://*.github.io", "every host under .github.io,"),
        ("ipfs://*.com", "every host under .com,"),
        ("http://*.168.1.1", "by the end of their address"),
    ],
)
def test_a_pattern_that_lets_in_strangers_is_refused_with_the_fix(pattern: str, told: str) -> None:
    """Where anybody can get a host that fits, the setting is as open as `*`, and has to say so."""
    with pytest.raises(
        ValueError, match=r"name the host, as in https://\*\.example\.com, or write \* for any page"
    ) as caught:
        OriginPattern.parse(pattern)
    assert told in str(caught.value)


@settings(deadline=None)
@given(st.text("htps:/*.[]@localevi1023\\?#, ", max_size=30))
def test_no_header_gets_past_a_port_star(text: str) -> None:
    """Whatever stands where the port stands: only digits are a port."""
    header = f"http://localhost{text}"
    if header in AllowedOrigins(["http://localhost:*"]):
        port = text.removeprefix(":")
        assert not text or (text != port and port.isdecimal())
