"""Small lines of drawn digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tidemill.bundle.lines.encoder import LineEncoder
from tidemill.core import transcripts
from tidemill.core.task import Task, TaskKind
from tidemill.models.recognition._base import LineData, LineProfile

READ = Task(TaskKind.RECOGNITION, "text")
ENCODER = LineEncoder(16, 256)


def drawn(text: str) -> Image.Image:
    """Black on white, in Pillow's own typeface."""
    font = ImageFont.load_default()
    image = Image.new("L", (10 + 8 * max(1, len(text)), 16), 255)
    ImageDraw.Draw(image).text((4, 2), text, fill=0, font=font)
    return image


def words(count: int, alphabet: str = "0123", seed: int = 0) -> list[str]:
    """Words of one to four characters."""
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(alphabet), rng.integers(1, 5))) for _ in range(count)]


def data(
    count: int = 96, alphabet: str = "0123", weights: tuple[str, ...] = ()
) -> tuple[LineProfile, LineData, LineData]:
    """Profile, training lines, and others."""
    texts = words(count, alphabet)
    images = [np.asarray(drawn(t))[..., None].repeat(3, axis=2) for t in texts]
    x, y = ENCODER.transform({"image": images}), transcripts.to_codes(texts)
    cut = count * 3 // 4
    profile = LineProfile.of(x, y, weights=weights)
    return profile, LineData(x, y, np.arange(cut)), LineData(x, y, np.arange(cut, count))


def table(folder: Path, texts: list[str], name: str = "lines") -> Path:
    """Write lines as images, and a table of their transcripts."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["file,text"]
    for i, text in enumerate(texts):
        drawn(text).save(folder / f"{name}{i:04d}.png")
        rows.append(f"{name}{i:04d}.png,{text}")
    path = folder / f"{name}.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path
