"""Letters of many scripts as if written by hand: open images that a study of other characters can begin from.

Letters are those of the open Noto typefaces, which ``typefaces.sh`` fetches, and of those that come with matplotlib;
some of each of more than a hundred scripts. The scripts of omniglot's small first set are left out: Balinese, Aramaic,
Greek, Korean and Latin; so are scripts of pictures and wedges, which no pen draws in a few strokes. A letter is thinned
to lines and traced as strokes of a pen; in each picture every stroke goes its own way, and the whole leans, turns and
bends. A class is a letter.
"""

from __future__ import annotations

import csv
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from strokes import Bits, Points, curve, drawn, thinned, traced

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

TYPEFACES = Path(__file__).resolve().parents[1] / ".environments" / "typefaces" / "debian" / "noto-core"
"""Where ``typefaces.sh`` leaves them."""
_DEJAVU = ("DejaVuSans.ttf", "DejaVuSans-Oblique.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf")
_LEFT_OUT = (
    "BALINESE", "IMPERIAL ARAMAIC", "GREEK", "COPTIC", "HANGUL", "HALFWIDTH HANGUL", "LATIN", "FULLWIDTH LATIN",
    "MATHEMATICAL", "ARABIC MATHEMATICAL", "CJK", "TANGUT", "YI", "NUSHU", "CUNEIFORM", "EGYPTIAN", "ANATOLIAN",
    "SIGNWRITING", "DUPLOYAN", "VEDIC", "TURNED", "ROMAN",
)  # fmt: skip
"""Beginnings of letters' names; mathematics has Latin and Greek letters again, and Coptic ones look like Greek."""
_OF_A_SCRIPT = 45
"""Letters at most; some scripts have hundreds."""
_FORMS = 3
"""Typefaces of a letter at most."""
_SIZE, _SIDE = 72, 105
"""Of a letter as it is drawn, and of a picture, in pixels."""
_PIXELS = (40, 500)
"""Lines of fewer pixels are dots, of more a picture."""
_ALIKE = 0.97
"""Letters whose blurred pictures are so much alike (correlation) are one class."""
_TURN, _LEAN, _ASPECT, _BEND = 0.1, 0.15, 0.15, 0.035
"""Standard deviations for the whole: radians, tangent, logarithm, and share of the side."""
_STROKE_TURN, _STROKE_SCALE, _STROKE_SHIFT, _POINT_SHIFT = 0.07, 0.08, 0.025, 0.015
"""The same for each stroke and its points."""
_KNOTS = 4
_LONGEST, _SPREAD, _LEAST, _MOST, _OFF, _EDGE = 67, 12, 38, 96, 6, 3
"""Pixels: a letter's longer side, how much that varies, its bounds; how far it is off the middle; from the edge."""
_PEN = (3.4, 4.6)
"""Thickness of lines in pixels."""

Form = list[Points]
"""The strokes of a letter, about the middle, in units of its longer side."""


def write(out: Path, *, letters: int, each: int, seed: int, typefaces: Path = TYPEFACES) -> Path:
    """Write pictures of letters, and a table of their classes.

    Parameters
    ----------
    out : Path
        A new folder.
    letters, each : int
        Classes, and pictures of each.
    seed : int
        Of the choice of letters and of what is done to them.
    typefaces : Path
        Folder of the Noto typefaces.

    Returns
    -------
    Path
        The table.
    """
    from PIL import Image

    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows = [("file", "label")]
    for letter, forms in _chosen(letters, typefaces, rng):
        for number in range(each):
            name = f"{ord(letter):05x}-{number:02d}.png"
            Image.fromarray(~_written(forms[number % len(forms)], rng)).save(out / name)
            rows.append((name, f"u{ord(letter):05x}"))
    path = out / "labels.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def _chosen(count: int, typefaces: Path, rng: np.random.Generator) -> Iterator[tuple[str, list[Form]]]:
    """Letters that look unlike each other, each with its strokes in some typefaces."""
    known = _letters(_faces(typefaces))
    letters = _mixed(known, rng)
    seen: list[Points] = []
    for letter in letters:
        lines = [line for line in (_line(face, letter) for face in known[letter]) if line is not None]
        forms = [form for form in map(_form, lines[:_FORMS]) if form is not None]
        if not forms:
            continue
        looks = _looks(lines[0])
        if seen and np.max(np.stack(seen) @ looks) > _ALIKE:
            continue
        seen.append(looks)
        yield letter, forms
        if len(seen) == count:
            return


def _faces(typefaces: Path) -> list[Path]:
    import matplotlib

    noto = sorted(typefaces.rglob("Noto*-Regular.ttf"))
    if not noto:
        sys.exit(f"There are no typefaces in {typefaces}; bench/deep/typefaces.sh fetches them.")
    return noto + [Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name for name in _DEJAVU]


def _letters(faces: list[Path]) -> dict[str, list[Path]]:
    """Letters with the faces that have them."""
    from fontTools.ttLib import TTFont  # comes with matplotlib

    found: dict[str, list[Path]] = defaultdict(list)
    for face in faces:
        for letter in map(chr, sorted(TTFont(face, lazy=True).getBestCmap())):
            name = unicodedata.name(letter, "")
            if unicodedata.category(letter) not in ("Lu", "Ll", "Lo") or unicodedata.decomposition(letter):
                continue
            if name and not f"{name} ".startswith(tuple(f"{script} " for script in _LEFT_OUT)):
                found[letter].append(face)
    return found


def _mixed(letters: dict[str, list[Path]], rng: np.random.Generator) -> list[str]:
    """Some letters of every script, in any order."""
    scripts: dict[str, list[str]] = defaultdict(list)
    for letter in letters:
        scripts[unicodedata.name(letter).split()[0]].append(letter)
    found = [str(c) for own in scripts.values() for c in rng.permutation(np.array(own))[:_OF_A_SCRIPT]]
    rng.shuffle(found)
    return found


@cache
def _face(path: Path) -> FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(str(path), _SIZE)


def _line(path: Path, letter: str) -> Bits | None:
    """A letter of a typeface as lines; None where it is a dot, or a picture."""
    from PIL import Image, ImageDraw

    face = _face(path)
    left, top, right, bottom = (int(v) for v in face.getbbox(letter))
    if right <= left or bottom <= top or max(right - left, bottom - top) > 2 * _SIZE:
        return None
    image = Image.new("L", (right - left + 4, bottom - top + 4), 0)
    ImageDraw.Draw(image).text((2 - left, 2 - top), letter, fill=255, font=face)
    line = thinned(np.asarray(image) > 127)
    return line if _PIXELS[0] <= line.sum() <= _PIXELS[1] else None


def _form(line: Bits) -> Form | None:
    strokes = traced(line)
    if sum(map(len, strokes)) < 3:
        return None
    points = np.vstack(strokes)
    low, high = points.min(axis=0), points.max(axis=0)
    return [(stroke - (low + high) / 2) / max(float((high - low).max()), 1e-6) for stroke in strokes]


def _looks(line: Bits) -> Points:
    """A blurred, small picture of unit length, without its mean."""
    points = np.argwhere(line).astype(np.float64)
    points -= (points.min(axis=0) + points.max(axis=0)) / 2
    size = max(float(np.abs(points).max()), 1e-6)
    grid, _, _ = np.histogram2d(points[:, 0] / size, points[:, 1] / size, bins=24, range=((-1, 1), (-1, 1)))
    soft = ndimage.gaussian_filter(np.minimum(grid, 2.0), 1.2).ravel()
    soft -= soft.mean()
    return np.asarray(soft / np.linalg.norm(soft))


def _written(form: Form, rng: np.random.Generator) -> Bits:
    """Write strokes in a way of their own: a picture whose ink is true."""
    lines = [curve(_moved(stroke, rng)) for stroke in form]
    lean, aspect = rng.normal(0, _LEAN), rng.normal(0, _ASPECT)
    matrix = _turning(rng.normal(0, _TURN)) @ np.array([[np.exp(aspect / 2), lean], [0, np.exp(-aspect / 2)]])
    points = _bent(np.vstack(lines) @ matrix.T, rng)
    places = _placed(points, rng)
    cuts = np.cumsum([len(line) for line in lines])[:-1]
    return drawn(np.split(places, cuts), _SIDE, rng.uniform(*_PEN))


def _turning(angle: float) -> Points:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _moved(stroke: Points, rng: np.random.Generator) -> Points:
    """Turn, stretch and shift a stroke about its middle, and its points besides."""
    middle = stroke.mean(axis=0)
    stretch = np.exp(rng.normal(0, _STROKE_SCALE, 2))
    whole = (stroke - middle) * stretch @ _turning(rng.normal(0, _STROKE_TURN)).T
    moved: Points = whole + middle + rng.normal(0, _STROKE_SHIFT, 2) + rng.normal(0, _POINT_SHIFT, stroke.shape)
    return moved


def _bent(points: Points, rng: np.random.Generator) -> Points:
    """Shift all points by a smooth field."""
    low, high = points.min(axis=0), points.max(axis=0)
    at = ((points - low) / np.maximum(high - low, 0.3)).T * (_KNOTS - 1)
    fields = rng.normal(0, _BEND, (2, _KNOTS, _KNOTS))
    shifts = [ndimage.map_coordinates(field, at, order=3, mode="nearest") for field in fields]
    return np.asarray(points + np.stack(shifts, axis=1))


def _placed(points: Points, rng: np.random.Generator) -> Points:
    """Give a letter its size and its place in the picture, in pixels."""
    low, high = points.min(axis=0), points.max(axis=0)
    scale = np.clip(rng.normal(_LONGEST, _SPREAD), _LEAST, _MOST) / max(float((high - low).max()), 1e-6)
    room = np.maximum(_SIDE / 2 - _EDGE - (high - low) * scale / 2, 0)
    off = np.clip(rng.normal(0, _OFF, 2), -room, room)
    return np.asarray((points - (low + high) / 2) * scale + _SIDE / 2 + off)
