"""The process in which videos are decoded."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from periscope.vision.file_program import Answer, answer_requests
from periscope.vision.videos.sampling import sample


def _answer(request: Any) -> Answer:
    data, settings, param = request
    facts, pixels = sample(data, settings, param=param)
    return asdict(facts), pixels


if __name__ == "__main__":
    answer_requests(_answer)
