"""Captions of all pictures in a folder: python examples/caption_folder.py [FOLDER [OUTPUT.jsonl]].

Stop it and start it again: captions are kept (`caption_cache` in models.yaml), so only new pictures take time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.progress import track

from periscope import Periscope, RequestError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".heic", ".avif", ".bmp", ".tiff"}
AT_ONCE = 8  # the captioner describes them in one batch


def drawn(folder: Path) -> Path:
    for colour in ("red", "green", "blue"):
        Image.new("RGB", (240, 240), colour).save(folder / f"{colour}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


async def describe(periscope: Periscope, file: Path, places: asyncio.Semaphore) -> tuple[Path, str | None, str | None]:
    """The file, its caption, and why there is none."""
    async with places:
        try:
            (told,) = await periscope.caption(file)
        except RequestError as error:  # this file is at fault; whatever else is raised would befall the others, too
            return file, None, error.message
        return file, told.text, told.error


async def main(files: list[Path], output: Path) -> None:
    """Writes a line of JSON for each picture, as soon as it is described."""
    console, places, num_skipped = Console(stderr=True), asyncio.Semaphore(AT_ONCE), 0
    async with Periscope() as periscope, asyncio.TaskGroup() as tasks:
        with output.open("w") as lines:
            running = [tasks.create_task(describe(periscope, file, places)) for file in files]
            for task in track(running, "Captions", console=console):
                file, text, error = await task
                if text is None:
                    num_skipped += 1
                    console.print(f"skipped {file}: {error}", markup=False, highlight=False)
                else:
                    lines.write(json.dumps({"file": str(file), "caption": text}, ensure_ascii=False) + "\n")
                    lines.flush()
    print(f"Captions in {output}: {len(files) - num_skipped}, files skipped: {num_skipped}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", nargs="?", type=Path, help="without it, some pictures are drawn")
    arguments.add_argument("output", nargs="?", type=Path, default=Path("captions.jsonl"))
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = asked.folder or drawn(Path(made))
        if not folder.is_dir():
            arguments.error(f"there is no folder {folder}")
        found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
        asyncio.run(main(found, asked.output))
