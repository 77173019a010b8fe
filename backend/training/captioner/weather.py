"""What happens to pictures on their way: blur, JPEG, noise, each to a few of them."""

import io
import random

import numpy as np
from PIL import Image, ImageFilter


def weathered(rng: random.Random, image: Image.Image) -> Image.Image:
    """The picture after a little of what happens to pictures: blur, JPEG, noise."""
    draw = rng.random()
    if draw < 0.04:
        return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2) * image.width / 200))
    if draw < 0.16:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=rng.randint(40, 95))
        return Image.open(buffer).convert("RGB")
    if draw < 0.22:
        source = np.random.default_rng(rng.getrandbits(32))
        noise = source.normal(0, rng.uniform(2, 10), (image.height, image.width, 1))
        return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
    return image
