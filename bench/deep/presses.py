"""Lines of text as if printed about 1500: open typefaces of that time and later ones, worn, with more or less ink.

Each line is drawn large in one typeface; characters that it lacks are taken from one that has nearly all of them, as
tall as it needs. The ink then spreads, breaks and leaves specks, the line bends, and it is shrunk to eight grey
levels. Typefaces come with ``bench/deep/typefaces.sh``.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from fits import ROOT
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

PLACE = ROOT / "bench" / ".environments" / "typefaces"
FACES = {
    "debian/gotico-antiqua/**/*[GR].otf": 3.0,
    "debian/gotico-antiqua/**/[HJ]*-[CTM]*.otf": 3.0,
    "debian/gotico-antiqua/**/Ptolemy*.otf": 3.0,
    "debian/blankenburg/**/*.ttf": 4.0,
    "debian/gamaliel/**/*.ttf": 4.0,
    "debian/junicode/**/JunicodeTwoBeta-Regular.otf": 2.0,
    "debian/junicode/**/JunicodeTwoBeta-Bold.otf": 2.0,
    "debian/junicode/**/JunicodeTwoBeta-Condensed.otf": 2.0,
    "debian/cardo/**/Cardo104s.ttf": 1.0,
    "debian/cardo/**/Cardob101.ttf": 1.0,
    "debian/goudybookletter/**/*.otf": 1.0,
    "debian/ebgaramond/**/EBGaramond08-Regular.otf": 1.0,
    "debian/ebgaramond/**/EBGaramond12-Regular.otf": 1.0,
    "debian/elstob/**/ElstobD-Regular.otf": 1.0,
    "debian/elstob/**/ElstobD-Bold.otf": 1.0,
    "debian/fanwood/**/FanwoodText.otf": 1.0,
    "debian/oldstandard/**/OldStandard-Bold.ttf": 1.0,
    "npm/unifraktur*/**/*-latin-?00-normal.woff": 4.0,
    "npm/texturina/**/texturina-latin-[57]00-normal.woff": 1.0,
    "npm/grenze-gotisch/**/grenze-gotisch-latin-[57]00-normal.woff": 1.0,
    "npm/[pjn]*/**/*-latin-400-normal.woff": 1.0,
    "npm/fruktur/**/*-latin-400-normal.woff": 1.0,
    "npm/almendra/**/*-latin-700-normal.woff": 1.0,
    "npm/im-fell-*/**/*-latin-400-normal.woff": 1.5,
}
"""How often a file of a typeface is drawn in: types of the fifteenth century and black letters most."""
SPARE = ("JunicodeTwoBeta-Regular.otf", "JunicodeTwoBeta-Bold.otf")
"""They have the signs of medieval writing."""
SIZE = 96
HEIGHT = 48
LEAST_OWN = 0.8
"""Share of a text's characters that its typeface has itself."""
NARROWEST, WIDEST = 4.6, 640
"""Pixels for each character at least, so that a net has a step for each; and of a line at most: all lines of a batch
are filled up to the widest, and what stands there takes time."""
NOWHERE = "\uf8f0"
"""A character that no typeface has: what is drawn for it stands for all that are missing."""
GREYS = (0, 32, 64, 96, 128, 160, 192, 255)

Ink = NDArray[np.float32]


class Face:
    """A typeface, and which characters it has."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.font = ImageFont.truetype(str(path), SIZE)
        self.small = -float(self.font.getbbox("x", anchor="ls")[1])
        self._nothing = self._seen(NOWHERE)
        self._has: dict[str, bool] = {" ": True}

    def has(self, character: str) -> bool:
        """Whether something of its own is drawn for it; looked up once."""
        if character not in self._has:
            seen = self._seen(character)
            self._has[character] = seen[0][0] > 0 and seen != self._nothing
        return self._has[character]

    def as_tall_as(self, other: Face) -> ImageFont.FreeTypeFont:
        """Its font in a size in which small letters are as tall as the other's."""
        return self.font.font_variant(size=max(10, round(SIZE * other.small / self.small)))

    def _seen(self, character: str) -> tuple[tuple[int, int], bytes]:
        mask = self.font.getmask(character)
        return mask.size, bytes(mask)


def typefaces() -> tuple[list[Face], list[float]]:
    """All typefaces, and how often each is drawn in."""
    paths, often = files_of(FACES)
    return [Face(path) for path in paths], often


def files_of(faces: Mapping[str, float]) -> tuple[list[Path], list[float]]:
    """All files of these typefaces, and how often each is drawn in."""
    found = {path: often for pattern, often in faces.items() for path in sorted(PLACE.glob(pattern))}
    missing = [pattern for pattern in faces if not any(PLACE.glob(pattern))]
    if missing:
        sys.exit(f"There are no typefaces {missing[0]} in {PLACE}; run bench/deep/typefaces.sh first.")
    return list(found), list(found.values())


def printed(texts: Sequence[str], count: int, seed: int) -> list[tuple[str, Image.Image]]:
    """So many lines of words of these texts in any order, with a character of theirs at a random place now and then."""
    faces, often = typefaces()
    spares = [face for face in faces if face.name in SPARE]
    draw = random.Random(seed)
    words = [word for text in texts for word in text.split()]
    characters = sorted({c for word in words for c in word})
    lines: list[tuple[str, Image.Image]] = []
    while len(lines) < count:
        text = text_of(words, characters, draw)
        face = draw.choices(faces, often)[0]
        if sum(map(face.has, text)) < LEAST_OWN * len(text):
            continue
        image = line(text, face, draw.choice(spares), draw)
        if NARROWEST * len(text) <= image.width <= WIDEST:
            lines.append((text, image))
    return lines


def text_of(words: Sequence[str], characters: Sequence[str], draw: random.Random) -> str:
    some = draw.choices(words, k=draw.randint(3, 6))
    for place, word in enumerate(some):
        if draw.random() < 0.12:
            at = draw.randint(0, len(word))
            some[place] = word[:at] + draw.choice(characters) + word[at:]
    return " ".join(some)[:48].strip()


def line(text: str, face: Face, spare: Face, draw: random.Random) -> Image.Image:
    clean = bent(written(text, face, spare, draw), draw)
    ink = specked(worn(clean, draw), draw)
    ink = cropped(ink, [draw.randint(0, 6) for _ in range(4)])
    width = max(HEIGHT // 2, round(ink.shape[1] * HEIGHT / ink.shape[0] * draw.uniform(0.85, 1.12)))
    scaler = draw.choice([Image.Resampling.BOX, Image.Resampling.BILINEAR])
    image = Image.fromarray(np.where(ink > 0, 0, 255).astype(np.uint8)).resize((width, HEIGHT), scaler)
    return image.point([GREYS[value // 32] for value in range(256)])


def written(text: str, face: Face, spare: Face, draw: random.Random) -> Ink:
    """Ink 0 to 1, words at uneven distances."""
    pieces = [(own, "".join(some)) for own, some in groupby(text, face.has)]
    fonts = {True: face.font, False: spare.as_tall_as(face)}
    length = sum(fonts[own].getlength(piece) for own, piece in pieces)
    image = Image.new("L", (int(1.5 * length) + 4 * SIZE, 4 * SIZE), 0)
    pen, x, gap, track = ImageDraw.Draw(image), 0.5 * SIZE, draw.uniform(0.35, 1.1), draw.gauss(0, 1.0)
    for own, piece in pieces:
        font = fonts[own]
        for place, word in enumerate(piece.split(" ")):
            if place:
                x += gap * max(0.22 * SIZE, font.getlength(" ")) * draw.uniform(0.7, 1.3)
            if word:
                pen.text((x, 2.2 * SIZE + draw.gauss(0, 0.5)), word, fill=255, font=font, anchor="ls")
                x += font.getlength(word) + track
    return cropped(np.asarray(image, dtype=np.float32) / 255, [12] * 4)


def bent(ink: Ink, draw: random.Random) -> Ink:
    width = ink.shape[1]
    along = np.arange(width) / width
    wave = draw.uniform(0, 3) * np.sin(2 * np.pi * (along / draw.uniform(0.5, 2) + draw.random()))
    moved = np.rint(wave + draw.gauss(0, 2.5) * (along - 0.5)).astype(int)
    out = ink.copy()
    for rows in np.unique(moved):
        out[:, moved == rows] = np.roll(ink[:, moved == rows], rows, axis=0)
    return out


def worn(ink: Ink, draw: random.Random) -> Ink:
    """Spread the ink, and keep it where it is dense enough: a level that changes from place to place."""
    soft = Image.fromarray((255 * ink).astype(np.uint8)).filter(ImageFilter.GaussianBlur(draw.uniform(1.0, 3.2)))
    level = draw.uniform(0.22, 0.5)
    dense = np.asarray(soft, dtype=np.float32) / 255
    dense = dense + level * draw.uniform(0.05, 0.3) * rough(dense.shape, 4, draw)
    dense = dense + level * draw.uniform(0, 0.25) * rough(dense.shape, 24, draw)
    if draw.random() < 0.2:
        dense = dense + 0.6 * level * rough(dense.shape, 90, draw).clip(max=0)
    return (dense > level).astype(np.float32)


def rough(shape: tuple[int, ...], cell: int, draw: random.Random) -> Ink:
    """Smooth noise whose hills are about so many pixels wide."""
    rng = np.random.default_rng(draw.getrandbits(32))
    knots = rng.standard_normal((shape[0] // cell + 2, shape[1] // cell + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(knots).resize((shape[1], shape[0]), Image.Resampling.BICUBIC), dtype=np.float32)


def specked(ink: Ink, draw: random.Random) -> Ink:
    for _ in range(draw.choice([0, 0, 0, 1, 2, 4])):
        y, x, size = draw.randrange(ink.shape[0]), draw.randrange(ink.shape[1]), draw.randint(1, 4)
        ink[max(0, y - size) : y + size, max(0, x - size) : x + size * draw.randint(1, 3)] = 1.0
    return ink


def cropped(ink: Ink, margins: Sequence[int]) -> Ink:
    """The part with ink, and so many pixels more above, below, left and right."""
    rows, columns = np.flatnonzero(ink.max(axis=1) > 0), np.flatnonzero(ink.max(axis=0) > 0)
    if not len(rows):
        return ink
    above, below, left, right = margins
    return ink[max(0, rows[0] - above) : rows[-1] + 1 + below, max(0, columns[0] - left) : columns[-1] + 1 + right]
