"""The environment and flags override the file."""

from __future__ import annotations

import pytest

from periscope.config import env_names
from tests.config.files import ONE, load_text, problems_of

FILE = ONE + "server: {port: 1000, heartbeat_s: 5}\nidle_unload_secs: 60\n"


def test_flags_beat_environment_beats_file_beats_default():
    """Each layer overrides the next one, and is named as the source."""
    env = {"PERISCOPE_SERVER__PORT": "2000", "PERISCOPE_SERVER__HEARTBEAT_S": "4"}
    config = load_text(FILE, env, {"port": 3000, "host": None})
    server, sources = config.server, config.sources
    assert (server.port, sources["server.port"]) == (3000, "flag --port")
    assert (server.heartbeat_s, sources["server.heartbeat_s"]) == (4.0, "env PERISCOPE_SERVER__HEARTBEAT_S")
    assert (config.idle_unload_s, sources["idle_unload_secs"]) == (60, "models.yaml:3")
    assert (server.host, sources["server.host"]) == ("127.0.0.1", "default")


def test_a_flag_that_says_no_is_named_as_it_was_given():
    """`--no-tcp` without a socket: there is no `--tcp` on that command line."""
    (problem,) = problems_of(ONE, flags={"tcp": False})
    assert problem.startswith("flag --no-tcp: server.tcp is false")
    assert "--uds PATH" in problem


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("PERISCOPE_IDLE_UNLOAD_SECS", "30m", lambda config: config.idle_unload_s == 1800),
        ("PERISCOPE_MEMORY__BUDGET", "24GB", lambda config: config.memory.budget == 24 * 10**9),
        ("PERISCOPE_MEMORY__WIRED_LIMIT", "99999999", lambda config: config.memory.wired_limit == 99_999_999),
        ("PERISCOPE_SERVER__API_KEY", "12345", lambda config: config.server.api_key == "12345"),
        ("PERISCOPE_SERVER__ALWAYS_INCLUDE_USAGE", "true", lambda config: config.server.always_include_usage),
        ("PERISCOPE_SERVER__LIMITS__MAX_WAITING", "3", lambda config: config.server.limits.max_waiting == 3),
        (
            "PERISCOPE_SERVER__CORS_ORIGINS",
            "http://a, http://b,",
            lambda config: config.server.cors_origins == ("http://a", "http://b"),
        ),
    ],
)
def test_the_environment_is_read_by_the_type_of_its_key(name, text, read):
    """The text of a variable becomes a value of its key's type."""
    config = load_text(ONE, {name: text})
    assert read(config)
    assert config.sources[env_names()[name]] == f"env {name}"


def test_an_empty_variable_counts_as_unset():
    """`PERISCOPE_SERVER__PORT=` changes nothing."""
    config = load_text(FILE, dict.fromkeys(env_names(), ""))
    assert config.server.port == 1000
    assert config.sources["server.port"] == "models.yaml:2"


@pytest.mark.parametrize(
    ("env", "problem"),
    [
        (
            {"PERISCOPE_SERVER__PORT": "eighty"},
            "env PERISCOPE_SERVER__PORT: server.port should be a valid integer, got 'eighty'",
        ),
        (
            {"PERISCOPE_SERVER__PORT": "99999"},
            "env PERISCOPE_SERVER__PORT: server.port should be less than or equal to 65535, got 99999",
        ),
        (
            {"PERISCOPE_SERVER__HEARTBEAT_S": "nan"},
            "env PERISCOPE_SERVER__HEARTBEAT_S: server.heartbeat_s should be a finite number, got NaN",
        ),
        (
            {"PERISCOPE_PORT": "80"},
            "env PERISCOPE_PORT: is not read by Periscope; did you mean PERISCOPE_SERVER__PORT?",
        ),
        (
            {"PERISCOPE_SERVER__PROT": "80"},
            "env PERISCOPE_SERVER__PROT: is not read by Periscope; did you mean PERISCOPE_SERVER__PORT?",
        ),
        ({"PERISCOPE_ZZZ": "1"}, "env PERISCOPE_ZZZ: is not read by Periscope"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(env, problem):
    """The problem starts with the variable's name."""
    assert problems_of(ONE, env) == (problem,)


def test_other_variables_are_left_alone():
    """Variables without the prefix PERISCOPE_, and those that other parts read, are ignored."""
    assert load_text(ONE, {"PORT": "x", "PERISCOPE_URL": "http://x", "PERISCOPE_HOME": "/x"}).server.port == 7374


def test_a_layer_over_an_empty_key_is_its_source():
    """A variable that sets a key left empty in the file is named as the source."""
    config = load_text(ONE + "server:\n  port:\n  host:\n", {"PERISCOPE_SERVER__PORT": "81"})
    assert config.sources["server.port"] == "env PERISCOPE_SERVER__PORT"
    assert config.sources["server.host"] == "default"


def test_the_file_and_the_layers_are_wrong_together():
    """A file whose section has a wrong type is reported, whatever the environment sets in it."""
    problems = problems_of(ONE + "server: 5", {"PERISCOPE_SERVER__PORT": "1"})
    assert problems == ("models.yaml:2: server should be a mapping of keys to values, got 5",)


@pytest.mark.parametrize(
    ("env", "text", "told"),
    [
        ({}, "", (False, "default")),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "", (True, "env OTEL_EXPORTER_OTLP_ENDPOINT")),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/t"}, "", (True, "env OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, "", (False, "default")),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"}, "", (False, "default")),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, "server: {tracing: false}\n", (False, "models.yaml:1")),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "PERISCOPE_SERVER__TRACING": "false"},
            *("", (False, "env PERISCOPE_SERVER__TRACING")),
        ),
    ],
)
def test_a_collector_in_the_environment_switches_tracing_on(env, text, told):
    """As with every program that OpenTelemetry is built into; the file and our own variable have the last word."""
    config = load_text(text + ONE, env=env)
    assert (config.server.tracing, config.sources["server.tracing"]) == told
