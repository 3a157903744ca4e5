"""Strings that machines should not read: each character turned, stretched to its cell and pulled at its corners.

Among the characters stand two marks that don't count. The whole is squeezed into the picture where it is too wide; dots
and an arc are drawn over it. How much of everything was chosen until pictures looked, and measured, like those of the
training part of captcha8 (heights and widths of what hangs together, shades, edges); the typeface is an open one that
looks like theirs, and comes with ``bench/deep/typefaces.sh``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from presses import files_of

FACES = {"debian/noto-mono/**/NotoMono-Regular.ttf": 1.0}
"""How often a file of a typeface is drawn in."""
SIZES = (46, 54, 60)
"""Of a character, in pixels of a picture twice as large as it will be."""
DECOYS = "?:.=%&()+<>/\\|~-"
MARKS = 2
SPACED = 0.5
"""Share of characters before which there is room for one more."""
TURN = 30.0
"""Degrees at most."""
WIDER, HIGHER = (0.1, 0.3), (0.2, 0.3)
"""By so much of its cell a character is pulled at most."""
OVERLAP = 0.25
"""So much of a cell the next one may cover."""
INK = 1.97
"""How much of the ground ink covers, for each of its own brightness: dark ink is thin."""
DOTS = 30
HEIGHT = 350
"""Pixels of the whole, of which the middle is shown."""


def drawn(
    counts: dict[str, int], length: int, size: tuple[int, int], count: int, seed: int
) -> list[tuple[str, Image.Image]]:
    """So many grey pictures (width, height), with characters as often as they were counted."""
    draw = random.Random(seed)
    paths, often = files_of(FACES)
    faces = [[ImageFont.truetype(str(path), points) for points in SIZES] for path in paths]
    characters, shares = list(counts), list(counts.values())
    lines = []
    for _ in range(count):
        text = "".join(draw.choices(characters, shares, k=length))
        lines.append((text, picture(text, draw.choices(faces, often)[0], size, draw)))
    return lines


def picture(
    text: str, fonts: Sequence[ImageFont.FreeTypeFont], size: tuple[int, int], draw: random.Random
) -> Image.Image:
    """Draw it twice as large, and halve it."""
    width, height = 2 * size[0], 2 * size[1]
    bolder = draw.randint(0, 1)
    cells = [cell(each, draw.choice(fonts), bolder, draw) for each in with_decoys(text, draw)]
    shade = np.dot([draw.randint(10, 200) for _ in range(3)], (0.299, 0.587, 0.114))
    ground = sum(draw.randint(238, 255) for _ in range(3)) / 3
    ink = set_side_by_side(cells, width, height, INK * float(shade) / 255, draw)
    image = Image.fromarray(np.rint(ground + (shade - ground) * ink).clip(0, 255).astype(np.uint8))
    with_lines(image, round(float(shade)), draw)
    return image.filter(ImageFilter.SMOOTH).resize(size, Image.Resampling.BILINEAR)


def with_decoys(text: str, draw: random.Random) -> list[str]:
    """Characters and marks that don't count anywhere between them, spaces before some."""
    tokens = list(text)
    for _ in range(MARKS):
        tokens.insert(draw.randint(0, len(tokens)), draw.choice(DECOYS))
    return [each for token in tokens for each in ([" "] * (draw.random() < SPACED) + [token])]


def cell(character: str, font: ImageFont.FreeTypeFont, bolder: int, draw: random.Random) -> Image.Image:
    """Draw one character over the whole of its cell, from the height of an ascender down to where it ends.

    Letters that differ by their size alone, as o and O, c and C, are thus drawn alike.
    """
    left, top, right, bottom = (round(side) for side in font.getbbox(character))
    width = round(font.getlength(character))
    if character == " ":
        return Image.new("L", (width, 1), 0)
    image = Image.new("L", (right - left + 2 * bolder, bottom - top + 2 * bolder), 0)
    ImageDraw.Draw(image).text((bolder - left, bolder - top), character, fill=255, font=font, stroke_width=bolder)
    image = image.rotate(draw.uniform(-TURN, TURN), Image.Resampling.BILINEAR, expand=True)
    image = image.crop(image.getbbox())
    dx, dy = width * draw.uniform(*WIDER), bottom * draw.uniform(*HIGHER)
    x1, y1, x2, y2 = (round(draw.uniform(-most, most)) for most in (dx, dy, dx, dy))
    w, h = width + abs(x1) + abs(x2), bottom + abs(y1) + abs(y2)
    corners = (x1, y1, -x1, h - y2, w + x2, h + y2, w - x2, -y1)
    return image.resize((w, h)).transform((width, bottom), Image.Transform.QUAD, corners)


def set_side_by_side(
    cells: Sequence[Image.Image], width: int, height: int, strength: float, draw: random.Random
) -> NDArray[np.float64]:
    """How much ink is where, 0 to 1."""
    total = sum(each.width for each in cells)
    average = total / sum(each.height > 1 for each in cells)
    whole = Image.new("L", (max(width, total), height), 0)
    x = round(average / 10)
    for each in cells:
        whole.paste(
            255,
            (x, (height - each.height) // 2),
            each.point([min(255, round(strength * value)) for value in range(256)]),
        )
        x += each.width - round(draw.uniform(0, OVERLAP * average))
    return np.asarray(whole.resize((width, height)), dtype=np.float64) / 255


def with_lines(image: Image.Image, shade: int, draw: random.Random) -> None:
    """Draw dots, and the lower half of an ellipse, which may lie outside."""
    width, shown = image.size
    outside = (HEIGHT - shown) // 2
    pen = ImageDraw.Draw(image)
    for _ in range(DOTS):
        x, y = draw.randint(0, width), draw.randint(0, HEIGHT) - outside
        pen.line((x, y, x - 1, y - 1), fill=shade, width=3)
    above = draw.randint(HEIGHT // 5, 4 * HEIGHT // 5)
    below = draw.randint(above, 4 * HEIGHT // 5)
    box = (
        draw.randint(0, width // 5),
        above - outside,
        draw.randint(4 * width // 5, width),
        below - outside,
    )
    pen.arc(box, draw.randint(0, 20), draw.randint(160, 200), fill=shade)
