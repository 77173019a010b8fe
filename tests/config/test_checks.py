"""Which configurations are refused, and with which messages."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.config import Config, load
from periscope.config.checks import is_loopback
from periscope.config.keys import settings
from periscope.errors import ConfigError
from tests.config.files import ONE, PAIR, SEEDS, load_text, problems_of


def entry(lines: str) -> str:
    """A file with one model and further keys of it, from line 4 on."""
    return "models:\n  - name: a\n    hf_id: o/a\n" + "".join(f"    {line}\n" for line in lines.splitlines())


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        (
            entry("params:\n  temprature: 1"),
            5,
            "models[0].params.temprature is not a known key; did you mean temperature?",
        ),
        (
            entry("temperature: 1"),
            4,
            "models[0].temperature is not a known key; did you mean models[].params.temperature?",
        ),
        (entry("path: models/a"), 4, "models[0].path is not a known key; did you mean local_path?"),
        (entry("zzz:"), 4, "models[0].zzz is not a known key"),
        ("model: []\n" + ONE, 1, "model is not a known key; did you mean models?"),
        (entry("params: {max_num_seqs: '8'}"), 4, "models[0].params.max_num_seqs should be a valid integer, got '8'"),
        (entry("params: {max_num_seqs: true}"), 4, "models[0].params.max_num_seqs should be a valid integer, got true"),
        (entry("params: {top_p: 1.5}"), 4, "models[0].params.top_p should be less than or equal to 1, got 1.5"),
        (
            entry("params: {dtype: int8}"),
            4,
            "models[0].params.dtype should be one of float32, float16, bfloat16, f32, f16, bf16, auto, got 'int8'",
        ),
        (entry("params: {kv_bits: 6}"), 4, "models[0].params.kv_bits should be one of 8, 4, got 6"),
        (
            entry("params: {kv_bits: 8, kv_group_size: 48}"),
            4,
            "models[0].params.kv_group_size should be one of 32, 64, 128, got 48",
        ),
        (
            entry("params: {kv_group_size: 32}"),
            4,
            "models[0].params.kv_group_size is for kv_bits, and there is none; remove it, or set kv_bits",
        ),
        (entry("params: [1]"), 4, "models[0].params should be a mapping of keys to values, got a list"),
        (entry("preload: 1"), 4, "models[0].preload should be a valid boolean, got 1"),
        (entry("aliases: b"), 4, "models[0].aliases should be a list, got 'b'"),
        (
            entry("aliases:\n- b\n- c d"),
            6,
            (
                "models[0].aliases[1] should be made of letters, digits and . _ - : @ + with single slashes between"
                ", got 'c d'"
            ),
        ),
        (
            entry("params: {reasoning_parser: qwen}"),
            4,
            (
                "models[0].params.reasoning_parser should be one of deepseek_r1, glm45, harmony, mistral, none, "
                "openai_gptoss, qwen3, seed_oss, think (did you mean qwen3?), got 'qwen'"
            ),
        ),
        (
            entry("variants:\n- name: a:x\n- name: a:x"),
            6,
            "models[0].variants[1].name 'a:x' is already taken by models[0].variants[0].name in line 5",
        ),
        (
            entry("variants:\n- {name: b, params: {dtype: f16}}"),
            5,
            "models[0].variants[0].params.dtype is not a known key; did you mean models[].params.dtype?",
        ),
        (entry("revision: 1234567"), 4, "models[0].revision should be a valid string, got 1234567"),
        (
            entry("ttl: soon"),
            4,
            (
                'models[0].ttl should be a number of seconds, or a text with a unit such as "90s", "30m" or "1h30m"'
                ", got 'soon'"
            ),
        ),
        (entry("ttl: 0"), 4, "models[0].ttl should be greater than or equal to 1, got 0"),
        (
            entry("capabilities: {vision_mode: true}"),
            4,
            "models[0].capabilities.vision_mode should be disabled, proxy or native, got true",
        ),
        (
            "server: {anthropic_model: onee}\n" + ONE,
            1,
            "server.anthropic_model 'onee' names no model of this file; did you mean one?",
        ),
        (
            "server: {anthropic_model: eyes}\n" + PAIR,
            1,
            "server.anthropic_model 'eyes' only captions images; name a text model",
        ),
        ("server: {port: 70000}\n" + ONE, 1, "server.port should be less than or equal to 65535, got 70000"),
        (
            "server: {allowed_hosts: ['*.local']}\n" + ONE,
            1,
            "server.allowed_hosts[0] should be a host name or an IP address, or * for any, got '*.local'",
        ),
        (
            "memory: {budget: 24 apples}\n" + ONE,
            1,
            (
                'memory.budget should be a number of bytes, or a text with a unit such as "24GB" or "24GiB"'
                ", got '24 apples'"
            ),
        ),
        ("models:\n  - hf_id: o/a", 2, "models[0].name is missing"),
        ("server: {}", 1, "models is missing"),
        ("models: []", 1, "models should not be empty, got an empty list"),
        ("", 1, "models is missing"),
        ("[1]", 1, "the file should be a mapping of keys to values, got a list"),
        ("models:\n  - name: a", 2, "models[0] has none of hf_id, local_path and remote; give one"),
        (entry("local_path: x"), 2, "models[0] has hf_id and local_path; give one"),
        (ONE + "models: []", 2, "models stands twice, first in line 1"),
    ],
)
def test_a_mistake_is_named_with_line_and_fix(text, line, problem):
    """A mistake gives one line with the file, the line, the key, what it should be and what it is."""
    assert problems_of(text) == (f"models.yaml:{line}: {problem}",)


@pytest.mark.parametrize(
    ("origin", "problem"),
    [
        (
            "localhost",
            "should be an origin such as http://localhost:3000, http://localhost:* or vscode-webview://*, or * for any",
        ),
        ("http://localhost:3000/app", "has a path, which no origin has; write http://localhost:3000"),
        ("http://", "names no host, so it matches nothing"),
        ("http://localhost:99999", "should have a port from 1 to 65535, or * for any"),
        (
            "http://local*",
            "may have * for the whole host, before its first dot (*.example.com), or for the port only",
        ),
        (
            "https://*.com",
            (
                "lets in every host under .com, where anybody can have one; "
                "name the host, as in https://*.example.com, or write * for any page"
            ),
        ),
        ("null", "is the origin of pages that hide theirs, which any site can do; name the origin or use *"),
    ],
)
def test_an_origin_that_never_matches_is_refused(origin, problem):
    """The error comes at start, with the line, not later in a browser."""
    text = f"server:\n  cors_origins:\n  - http://localhost:*\n  - '{origin}'\n{ONE}"
    assert problems_of(text) == (f"models.yaml:4: server.cors_origins[1] {problem}, got {origin!r}",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "models:\n- {name: a, hf_id: o/a}\n- {name: a, hf_id: o/b}",
            "models.yaml:3: models[1].name 'a' is already taken by models[0].name in line 2",
        ),
        (
            "models:\n- {name: a, hf_id: o/a}\n- {name: b, hf_id: o/b, aliases: [c, a]}",
            "models.yaml:3: models[1].aliases[1] 'a' is already taken by models[0].name in line 2",
        ),
        (
            entry("aliases: [a]"),
            "models.yaml:4: models[0].aliases[0] 'a' is already taken by models[0].name in line 2",
        ),
        (
            PAIR.replace("[default, w]", "[w]") + "    aliases: [default]",
            (
                "models.yaml:12: models[2] is called 'default', which always means the first text model; "
                "move it to the front"
            ),
        ),
    ],
)
def test_two_models_cannot_share_a_name(text, problem):
    """A name or alias that is taken, and a `default` that is not the first, are refused."""
    assert problems_of(text) == (problem,)


def proxied(capabilities: str) -> str:
    """A pair of models whose text model has these capabilities, in line 4."""
    return f"models:\n- name: a\n  hf_id: o/a\n  capabilities: {{{capabilities}}}\n- {{name: eyes, hf_id: o/eyes}}\n"


AT = "models.yaml:4: models[0].capabilities"


@pytest.mark.parametrize(
    ("capabilities", "problem"),
    [
        ("vision_mode: proxy", ".vision_mode is proxy, so vision_proxy must name the captioner: model or hf_id"),
        ("vision_proxy: {model: eyes}", ".vision_proxy is set but vision_mode is not; add vision_mode: proxy"),
        ("vision_mode: proxy, vision_proxy: {}", ".vision_proxy has neither of model and hf_id; give one"),
        (
            "vision_mode: proxy, vision_proxy: {model: eyes, hf_id: o/x}",
            ".vision_proxy has both of model and hf_id; give one",
        ),
        (
            "vision_mode: proxy, vision_proxy: {model: eye}",
            ".vision_proxy.model 'eye' names no model of this file; did you mean eyes?",
        ),
        (
            "vision_mode: disabled, vision_proxy: {model: nobody}",
            ".vision_proxy.model 'nobody' names no model of this file",
        ),
        (
            "vision_mode: proxy, vision_proxy: {model: a}",
            ".vision_proxy.model 'a' is the model itself; if it can see, use vision_mode: native",
        ),
        (
            "vision_mode: proxy, vision_proxy: {hf_id: o/a}",
            ".vision_proxy.hf_id 'o/a' is the model itself; if it can see, use vision_mode: native",
        ),
    ],
)
def test_a_proxy_needs_a_captioner(capabilities, problem):
    """A proxy that names no captioner, two, or one that cannot see is refused."""
    assert problems_of(proxied(capabilities)) == (AT + problem,)


def test_a_proxied_model_cannot_caption():
    """A model that needs a captioner itself cannot be one."""
    problems = problems_of(PAIR + "    capabilities: {vision_mode: proxy, vision_proxy: {model: w}}")
    assert problems == (
        "models.yaml:14: models[2].capabilities.vision_proxy.model 'w' has a vision_proxy of its own, so it cannot see",
    )


def test_all_problems_come_at_once():
    """Problems of environment, flags, values, unknown keys and clashes are reported together, from top to bottom."""
    text = (
        "server: {prot: 1}\nmodels:\n- name: a\n- {name: a, hf_id: o/b, pin: maybe}\n"
        "- {name: c, hf_id: o/c, capabilities: {vision_mode: proxy}}\nmemory: 5\n"
    )
    problems = problems_of(text, {"PERISCOPE_SERVER__HEARTBEAT_S": "99"}, {"port": 70000})
    assert [problem.partition(": ")[0] for problem in problems] == [
        "flag --port",
        "env PERISCOPE_SERVER__HEARTBEAT_S",
        "models.yaml:1",
        "models.yaml:3",
        "models.yaml:4",
        "models.yaml:4",
        "models.yaml:5",
        "models.yaml:6",
    ]


def test_the_bound_of_all_bodies_holds_the_largest_body():
    """A bound of all bodies below that of one is refused with both values; if unset, it depends on the other."""
    limits = "server: {limits: {max_body_bytes: 2GiB, max_body_bytes_in_flight: 1GiB}}"
    (problem,) = problems_of(f"{limits}\n{ONE}")
    assert "server.limits.max_body_bytes_in_flight is 1073741824 bytes" in problem
    assert "max_body_bytes is 2147483648" in problem
    assert load_text(limits.replace("1GiB", "2GiB") + "\n" + ONE).server.limits.body_bytes_in_flight == 2 * 1024**3
    alone = load_text("server: {limits: {max_body_bytes: 2GiB}}\n" + ONE)
    assert alone.server.limits.body_bytes_in_flight == 4 * 1024**3
    (lowered,) = problems_of("server: {limits: {max_body_bytes_in_flight: 1MiB}}\n" + ONE)
    assert "max_body_bytes is 234881024" in lowered


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "mac.local"])  # noqa: S104 - must be refused
def test_a_host_that_others_reach_needs_a_key(host):
    """A server that other machines can reach does not start without an API key."""
    (problem,) = problems_of(ONE, {}, {"host": host})
    assert problem.startswith(f"flag --host: server.host '{host}' lets others in, so it needs an API key")
    assert load_text(ONE, {"PERISCOPE_SERVER__API_KEY": "k"}, {"host": host}).server.host == host


@pytest.mark.parametrize(("host", "expected"), [("localhost", True), ("127.0.0.9", True), ("::1", True), ("", False)])
def test_loopback_is_known(host, expected):
    """Addresses and names of this machine need no key."""
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("server", "problem"),
    [
        ("host: 0.0.0.0, tls: {cert: c.pem, key: k.pem}", "server.host '0.0.0.0' lets others in"),
        ("host: 0.0.0.0, uds: p.sock", "server.host '0.0.0.0' lets others in"),
        ("host: 0.0.0.0, tcp: false, uds: p.sock", None),
        (
            "tcp: false",
            "server.tcp is false, so there must be a Unix socket to listen on: set server.uds",
        ),
        ("tls: {cert: c.pem}", "server.tls.cert needs key beside it"),
        ("tls: {key: k.pem}", "server.tls.key needs cert beside it"),
    ],
)
def test_where_the_server_listens_is_checked(server, problem):
    """Others need a key, with TLS or without; a socket in a file is not open to them; it listens somewhere."""
    problems = problems_of(ONE + f"server: {{{server}}}", {})
    assert len(problems) == (0 if problem is None else 1)
    assert problem is None or problem in problems[0]


def test_files_of_the_server_are_relative_to_the_file(tmp_path):
    """As all paths of it are."""
    text = ONE + "server: {uds: run/p.sock, tls: {cert: c.pem, key: /etc/k.pem}}"
    server = load_text(text, folder=tmp_path).server
    assert (server.uds, server.tls.cert) == (f"{tmp_path}/run/p.sock", f"{tmp_path}/c.pem")
    assert server.tls.key == "/etc/k.pem"


def test_named_keys_are_checked():
    """Names and hashes stand once, a hash is one, and a key in its place is not shown; any of them opens a host."""
    good = "sha256:" + "0" * 64
    assert problems_of(ONE + f"server: {{host: 0.0.0.0, api_keys: [{{name: a, hash: '{good}'}}]}}", {}) == ()
    text = f"server:\n  api_keys:\n    - {{name: a, hash: '{good}'}}\n    - {{name: a, hash: '{good}'}}\n"
    assert problems_of(ONE + text, {}) == (
        "models.yaml:5: server.api_keys[1].name is already taken in line 4",
        "models.yaml:5: server.api_keys[1].hash is already taken in line 4",
    )
    problems = problems_of(ONE + "server: {api_keys: [{name: my key, hash: sk-periscope-secret}]}", {})
    assert "server.api_keys[0].name should be made of letters" in problems[0]
    assert "server.api_keys[0].hash should be sha256: and 64 hexadecimal digits" in problems[1]
    assert "sk-periscope-secret" not in "".join(problems)


def test_an_api_key_is_never_shown():
    """The error for an invalid key does not repeat it."""
    problems = problems_of(ONE + "server: {api_key: my secret}", {})
    assert problems == ("models.yaml:2: server.api_key should be printable ASCII without spaces",)


SCALARS = st.one_of(
    st.text(max_size=20).map(json.dumps),
    st.text(alphabet="0123456789.eE+-xX:_ aAnNfF~!&*|>%@`'\"{}[],#?yYoOtTGBimsh\\/", max_size=12),
    st.sampled_from(["null", "true", "-1", "0", "1e400", "2001-12-14t21:59:43.10-99:99", "!!binary a", "0o7", "1:30"]),
    st.integers().map(str),
    st.floats().map(str),
)
TOP_KEYS = [key for key, _ in settings() if not key.startswith("models[]")]
MODEL_KEYS = [key.removeprefix("models[].") for key, _ in settings() if key.startswith("models[]")]


def nested(key: str, scalar: str, indent: str) -> str:
    """`a.b` and a scalar as lines of YAML."""
    parts = key.split(".")
    lines = [f"{indent}{'  ' * depth}{part}:" for depth, part in enumerate(parts)]
    return "\n".join(lines) + f" {scalar}\n"


@given(key=st.sampled_from(TOP_KEYS), scalar=SCALARS)
def test_any_scalar_at_any_key_is_taken_or_refused(key, scalar):
    """Whatever value a key has, the result is a Config or a ConfigError."""
    assert isinstance(outcome(ONE + nested(key, scalar, "")), Config | tuple)


@given(key=st.sampled_from(MODEL_KEYS), scalar=SCALARS)
def test_any_scalar_at_any_model_key_is_taken_or_refused(key, scalar):
    """Whatever value a model's key has, the result is a Config or a ConfigError."""
    assert isinstance(outcome("models:\n-\n" + nested(key, scalar, "  ")), Config | tuple)
    assert isinstance(outcome(SEEDS + nested(key, scalar, "    ").replace("    name:", "    title:")), Config | tuple)


@given(text=st.text(alphabet=st.sampled_from("models: nae{}[]-&*!|>'\"\n\t#?,"), max_size=60))
def test_any_text_is_taken_or_refused(text):
    """Whatever a file holds, the result is a Config or a ConfigError."""
    assert isinstance(outcome(text), Config | tuple)


def outcome(text: str) -> Config | tuple[str, ...]:
    """The configuration, or its problems."""
    try:
        return load_text(text)
    except ConfigError as error:
        problems = error.problems
    assert problems
    assert all("\n" not in problem for problem in problems)
    return problems


def test_a_file_that_is_not_text_is_refused(tmp_path):
    """Bytes that are not UTF-8 give one problem."""
    path = tmp_path / "models.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load(path, {}, {}, cwd=tmp_path, home=tmp_path)
