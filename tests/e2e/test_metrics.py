"""`/metrics` on a real server: requests about pictures are counted where they belong."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.drawing import circle, picture, user

OUTPUT = {"gen_ai_token_type": "output"}


def total(client: httpx.Client, name: str, **labels: str) -> float:
    """The sum of all samples that have these labels."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and sample.labels.items() >= labels.items()
    )


def test_an_answer_about_a_picture_is_counted(client: httpx.Client) -> None:
    """Its route, its tokens, its first token; its caption, and the hit when the same picture comes again."""
    body = {"messages": [user("What is this?", picture(circle("teal", size=237)))], "max_tokens": 8}
    before = total(client, "periscope_caption_seconds_count")
    answers = [client.post("/v1/chat/completions", json=body).json() for _ in range(2)]
    assert total(client, "periscope_http_requests_total", route="/v1/chat/completions", status="200") >= 2
    assert total(client, "gen_ai_server_time_to_first_token_seconds_count", gen_ai_request_model="demo") >= 2
    output = total(client, "gen_ai_client_token_usage_sum", **OUTPUT)
    assert output >= sum(answer["usage"]["completion_tokens"] for answer in answers)
    assert total(client, "periscope_caption_seconds_count") == before + 1
    assert total(client, "periscope_caption_cache_lookups_total", result="hit") >= 1
    assert total(client, "periscope_prompt_cache_requests_total", result="hit") >= 1
    assert total(client, "periscope_model_state", model="demo", state="ready") == 1
    assert total(client, "periscope_model_load_seconds_count", model="demo") == 1


def test_a_refused_body_and_a_foreign_name_are_counted(client: httpx.Client) -> None:
    """By the code that the client got; the model of a `claude-...` name is the one that answers."""
    assert client.post("/v1/chat/completions", content=b"{").status_code == 400
    assert client.post("/v1/chat/completions", json={"model": "no", "messages": [user("Hi")]}).status_code == 404
    asked = {"model": "claude-sonnet-4-5", "max_tokens": 3, "messages": [user("Hi")]}
    assert client.post("/v1/messages", json=asked).status_code == 200
    assert total(client, "periscope_http_requests_total", error="invalid_json") >= 1
    assert total(client, "periscope_http_requests_total", error="model_not_found", model="unknown") >= 1
    assert total(client, "periscope_http_requests_total", route="/v1/messages", model="demo") >= 1
