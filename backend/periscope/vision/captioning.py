"""ImageCaptioning finds or makes the captions of a request's pictures. Event loop only.

A caption comes from the cache, from another request that is having it made, or from the captioner. Whatever a captioner
raises becomes a `CaptionFailed` of its images here; only `ServerBusy` is passed on, because it is no failure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from periscope.captions.cache import Answer, CaptionCache
from periscope.captions.caption import Caption, CaptionOutcome
from periscope.captions.keys import cache_key
from periscope.core import Image, Tell
from periscope.errors import CaptionFailed, InvalidRequest, PeriscopeError, ServerBusy
from periscope.events import Event
from periscope.vision.captioner import Captioner, CaptionerId, CaptionRequest
from periscope.vision.described import described
from periscope.vision.intake import AdmittedImages, Picture
from periscope.vision.left_out import LeftOutImages
from periscope.vision.prompts import PROMPT_VERSION
from periscope.vision.settings import ProxySettings

logger = logging.getLogger(__name__)

#: Called with a captioner's name and what is wrong with its captions, for a person; None = they are made.
ReportProblem: TypeAlias = Callable[[str, str | None], None]

NOT_AVAILABLE = "the captioner is not available"
FAILED = "the captioner failed"


def caption_key(*, image_sha256: str, captioner: CaptionerId, prompt: str, max_tokens: int, max_side_px: int) -> str:
    """Pure: holds everything a caption depends on; the same in every process."""
    facts: list[str | int] = [captioner.name, captioner.revision, PROMPT_VERSION, prompt, max_tokens, max_side_px]
    return cache_key("caption", image_sha256, facts)


class ImageCaptioning:
    """Owns the order of the steps: what is left out, pixels, captions. All texts belong to the cache.

    Args:
        report_problem: told after each call of a captioner whether it described anything.
        publish: told what each call has cost.
    """

    def __init__(
        self,
        cache: CaptionCache,
        report_problem: ReportProblem = lambda *_: None,
        publish: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self._cache = cache
        self._report_problem = report_problem
        self._publish = publish
        self._left_out = LeftOutImages(cache.kept)

    async def left_out(
        self, pictures: Sequence[Picture], captioner: Captioner, settings: ProxySettings
    ) -> frozenset[int]:
        """Indices of the pictures of a conversation that are not described, the same in every turn."""
        await self._cache.loaded()
        keys = [_key_of(picture, captioner, settings) for picture in pictures]
        return self._left_out.choose(keys, self._cache.missing(keys), settings.limits.max_images)

    async def check_all(self, pictures: Sequence[Picture], captioner: Captioner, settings: ProxySettings) -> None:
        """Check that all of these pictures may be described for one request.

        Raises:
            InvalidRequest: more captions would have to be made than `settings.limits.max_images`.
        """
        await self._cache.loaded()
        missing = self._cache.missing(_key_of(picture, captioner, settings) for picture in pictures)
        if len(missing) > settings.limits.max_images:
            raise InvalidRequest(
                f"`images` holds {len(missing)} images that have no caption yet; at most "
                f"{settings.limits.max_images} are described at once (`max_images`). Send them in several requests.",
                param="images",
            )

    async def answers(
        self,
        pictures: Sequence[Picture],
        admitted: AdmittedImages,
        captioner: Captioner,
        settings: ProxySettings,
        tell: Tell,
    ) -> list[Answer]:
        """One answer for each of these pictures of the request. Of equal pictures only the first counts as made.

        Raises:
            ImageInvalid: the pixels of a picture are broken; raised before any captioning.
            ServerBusy: the captioner has too many requests, or did not begin on an image in time.
        """
        keys = [_key_of(picture, captioner, settings) for picture in pictures]
        by_key = dict(zip(keys, pictures, strict=True))
        images = await self._missing_images(by_key, admitted)
        prompts = {key: picture.place.prompt for key, picture in by_key.items()}

        async def make(missing: tuple[str, ...], tell: Tell) -> Sequence[CaptionOutcome]:
            asked = tuple(images[key] for key in missing), tuple(prompts[key] for key in missing)
            request = CaptionRequest(*asked, settings.max_tokens, settings.timeout_s)
            outcomes = await outcomes_of(captioner, request, tell)
            self._judge(captioner.id.name, outcomes)
            self._publish(described(captioner.id.name, outcomes))
            return outcomes

        answers = await self._cache.get_or_caption(keys, make, tell=tell)
        first = {key: at for at, key in reversed(tuple(enumerate(keys)))}
        return [replace(answers[key], is_made=answers[key].is_made and first[key] == at) for at, key in enumerate(keys)]

    def _judge(self, captioner: str, outcomes: Sequence[CaptionOutcome]) -> None:
        """Report a captioner that described none of a request's images, and one that described any.

        Images that a busy captioner did not begin with say nothing of it. A captioner that is not available says why
        in its own status.
        """
        failures = [outcome for outcome in outcomes if isinstance(outcome, CaptionFailed)]
        if any(isinstance(outcome, Caption) for outcome in outcomes):
            self._report_problem(captioner, None)
        elif reasons := sorted({each.detail or each.reason for each in failures if each.reason != NOT_AVAILABLE}):
            said = f"Captioner {captioner} described none of the last {len(failures)} new images: {'; '.join(reasons)}"
            self._report_problem(captioner, said.rstrip(".") + ".")

    async def _missing_images(self, by_key: Mapping[str, Picture], admitted: AdmittedImages) -> dict[str, Image]:
        """Decoded pixels of all pictures whose captions have to be made, by cache key.

        The set can grow while pictures are decoded: cache entries are evicted, and captions that another request was
        making fail. So it is asked again until nothing is new.
        """
        images: dict[str, Image] = {}
        while missing := [key for key in self._cache.missing(by_key) if key not in images]:
            images.update(zip(missing, await admitted.decode([by_key[key] for key in missing]), strict=True))
        return images


async def outcomes_of(captioner: Captioner, request: CaptionRequest, tell: Tell) -> Sequence[CaptionOutcome]:
    """One outcome for each image; if the captioner raises, the same failure for all of them.

    All images go to the captioner in one call, whatever is asked about each, so that a request takes one place in its
    queue.

    Raises:
        ServerBusy: the captioner has too many requests. It has not failed, so no image gets a marker for it.
    """
    name, num_images = captioner.id.name, len(request.images)
    try:
        outcomes = await captioner.caption(request, tell)
    except ServerBusy:
        raise
    except PeriscopeError as error:
        logger.warning("captioner %s: %s", name, error.message)
        failure = CaptionFailed(NOT_AVAILABLE)
    except Exception as error:  # noqa: BLE001 - a captioner's bug must not take text requests along
        logger.warning("captioner %s failed: %s", name, type(error).__name__)
        failure = CaptionFailed(FAILED, detail=f"it failed with {type(error).__name__}")
    else:
        if len(outcomes) == num_images:
            return outcomes
        logger.warning("captioner %s gave %d captions for %d images", name, len(outcomes), num_images)
        failure = CaptionFailed(FAILED, detail=f"it gave {len(outcomes)} captions for {num_images} images")
    return [failure] * num_images


def _key_of(picture: Picture, captioner: Captioner, settings: ProxySettings) -> str:
    return caption_key(
        image_sha256=picture.header.sha256,
        captioner=captioner.id,
        prompt=picture.place.prompt,
        max_tokens=settings.max_tokens,
        max_side_px=settings.limits.max_side_px,
    )
