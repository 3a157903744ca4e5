"""Strings that machines should not read: characters turned and warped, decoys between them, dots and an arc.

Each string is drawn in one plain open typeface, token after token, wider than the picture if it has to be, and then
squeezed into it. Typefaces come with ``bench/deep/typefaces.sh``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from presses import files_of

FACES = {
    "debian/noto-mono/**/NotoMono-Regular.ttf": 4.0,
    "debian/noto-mono/**/NotoSansMono-*.ttf": 1.0,
    "debian/dejavu-core/**/DejaVuSans*.ttf": 1.0,
    "debian/liberation/**/Liberation[SM][ao][n]*-[RB][eo]*.ttf": 0.5,
    "debian/open-sans/**/OpenSans-[RSB]*.ttf": 0.5,
    "debian/roboto-unhinted/**/Roboto-[RMB][eo]*.ttf": 0.5,
    "debian/cantarell/**/Cantarell-[RB]*.otf": 1.0,
    "debian/lato/**/Lato-[RMBS]*d*.ttf": 0.25,
    "debian/inconsolata/**/*.otf": 0.5,
    "debian/hack/**/Hack-[RB]*.ttf": 0.25,
    "debian/firacode/**/FiraCode-[RM]*.ttf": 0.25,
}
"""How often a file of a typeface is drawn in."""
DECOYS = "??:::%%&().+++<>;=\\/*#"
SIZES = (56, 64, 72, 80, 90)
"""Of a character, in pixels of a picture twice as large as it will be."""


def drawn(
    counts: dict[str, int], length: int, size: tuple[int, int], count: int, seed: int
) -> list[tuple[str, Image.Image]]:
    """So many grey pictures (width, height), with characters as often as they were counted."""
    draw = random.Random(seed)
    paths, often = files_of(FACES)
    fonts = [[ImageFont.truetype(str(path), points) for points in SIZES] for path in paths]
    characters, shares = list(counts), list(counts.values())
    lines = []
    for _ in range(count):
        text = "".join(draw.choices(characters, shares, k=length))
        lines.append((text, picture(text, draw.choices(fonts, often)[0], size, draw)))
    return lines


def picture(
    text: str, fonts: Sequence[ImageFont.FreeTypeFont], size: tuple[int, int], draw: random.Random
) -> Image.Image:
    """Draw it twice as large, and halve it."""
    width, height = 2 * size[0], 2 * size[1]
    ink = squeezed([token(each, fonts, draw) for each in with_decoys(text, draw)], width, height, draw)
    ground, shade = draw.randint(236, 255), draw.randint(100, 200)
    lines = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(lines)
    for _ in range(draw.randint(4, 16)):
        x, y, r = draw.randint(0, width), draw.randint(0, height), draw.choice([1, 2, 2, 3])
        pen.ellipse((x - r, y - r, x + r, y + r), fill=255)
    if draw.random() < 0.6:
        x1, x2 = draw.randint(0, width // 4), draw.randint(3 * width // 4, width)
        y1, y2 = draw.randint(height // 8, height), draw.randint(height // 8, height)
        turn = draw.choice([0, 180])
        box = (x1, min(y1, y2) - draw.randint(0, height // 2), x2, max(y1, y2) + 1)
        pen.arc(box, turn, turn + draw.randint(100, 180), fill=draw.randint(120, 255), width=draw.choice([1, 2, 2]))
    ink = np.maximum(ink, np.asarray(lines, dtype=np.float32) / 255)
    image = Image.fromarray(np.rint(ground + (shade - ground) * ink).clip(0, 255).astype(np.uint8))
    if draw.random() < 0.7:
        image = image.filter(ImageFilter.SMOOTH)
    return image.resize(size, Image.Resampling.BOX)


def with_decoys(text: str, draw: random.Random) -> list[str]:
    """Characters, spaces before some of them, and marks that don't count anywhere."""
    tokens = [each for character in text for each in ([" "] * (draw.random() < 0.5) + [character])]
    for _ in range(draw.choice([0, 1, 1, 2, 2, 3])):
        tokens.insert(draw.randint(0, len(tokens)), draw.choice(DECOYS))
    return tokens


def token(character: str, fonts: Sequence[ImageFont.FreeTypeFont], draw: random.Random) -> Image.Image:
    """One character, turned and pulled at its corners; a few are filled up."""
    font = draw.choice(fonts)
    left, top, right, bottom = font.getbbox(character)
    w, h = max(1, round(right - left)), max(1, round(bottom - top))
    if character == " ":
        return Image.new("L", (max(2, round(font.getlength(" ") * draw.uniform(0.3, 1.0))), 1), 0)
    image = Image.new("L", (w + 4, h + 4), 0)
    ImageDraw.Draw(image).text((2 - left, 2 - top), character, fill=255, font=font)
    if character in DECOYS and draw.random() < 0.1:
        image.paste(255, (0, 0, *image.size))
    image = image.crop(image.getbbox() or (0, 0, 1, 1)).rotate(
        draw.uniform(-30, 30), Image.Resampling.BILINEAR, expand=True
    )
    w, h = image.size
    dx, dy = w * draw.uniform(0.1, 0.3), h * draw.uniform(0.2, 0.3)
    x1, y1, x2, y2 = (int(draw.uniform(-d, d)) for d in (dx, dy, dx, dy))
    w2, h2 = w + abs(x1) + abs(x2), h + abs(y1) + abs(y2)
    corners = (x1, y1, -x1, h2 - y2, w2 + x2, h2 + y2, w2 - x2, -y1)
    return image.resize((w2, h2)).transform((w, h), Image.Transform.QUAD, corners, Image.Resampling.BILINEAR)


def squeezed(tokens: Sequence[Image.Image], width: int, height: int, draw: random.Random) -> np.ndarray:
    """Set them one beside or over the other, and squeeze the whole into the picture."""
    total = sum(each.width for each in tokens)
    overlap = 0.25 * total / len(tokens)
    canvas = np.zeros((height, max(width, total + 8)), dtype=np.float32)
    x = draw.uniform(0.0, 0.1) * total / len(tokens)
    for each in tokens:
        if each.height > 1:
            y = (height - each.height) // 2 + draw.randint(-3, 3)
            mask = np.asarray(each, dtype=np.float32) / 255
            mask = mask[max(0, -y) : max(0, -y) + height]
            y, place = max(0, y), int(x)
            part = canvas[y : y + mask.shape[0], place : place + mask.shape[1]]
            np.maximum(part, mask[: part.shape[0], : part.shape[1]], out=part)
        x = max(0.0, x + each.width - draw.uniform(0, overlap))
    left, right = (round(width * draw.uniform(0.0, 0.1)) for _ in range(2))
    most = width - left - right
    narrow = min(most, round((x + 4) * draw.uniform(0.6, 1.0)))
    whole = Image.fromarray((255 * canvas[:, : int(x) + 4]).astype(np.uint8))
    ink = np.zeros((height, width), dtype=np.float32)
    left += draw.randint(0, most - narrow) // 2
    ink[:, left : left + narrow] = np.asarray(whole.resize((narrow, height), Image.Resampling.BILINEAR)) / np.float32(
        255
    )
    return ink
