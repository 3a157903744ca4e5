"""Letters of many scripts as if written by hand: open images that a study of other characters can begin from.

Letters are drawn in the open typefaces that come with matplotlib and thinned to lines; each picture bends, leans,
turns, scales and thickens them in a way of its own. A class is a letter.
"""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

_FACES = ("DejaVuSans.ttf", "DejaVuSans-Oblique.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf")
_SIZE, _SIDE = 72, 105
"""Of a letter as it is drawn, and of a picture, in pixels."""
_LEAST_POINTS = 40
"""Lines of fewer pixels are dots."""
_TURN, _LEAN, _SCALE, _SHIFT, _BEND = 0.2, 0.25, 0.2, 0.08, 0.06
"""Radians, tangent, share, and shares of the picture's side (standard deviation of the bends)."""
_KNOTS = 5
_ALIKE = 0.97
"""Letters whose blurred pictures are so much alike (correlation) are one class: A is also a capital alpha."""

Bits = NDArray[np.bool_]
Points = NDArray[np.float64]


def write(out: Path, *, letters: int, each: int, seed: int) -> Path:
    """Write pictures of letters, and a table of their classes.

    Parameters
    ----------
    out : Path
        A new folder.
    letters, each : int
        Classes, and pictures of each.
    seed : int
        Of the choice of letters and of what is done to them.

    Returns
    -------
    Path
        The table.
    """
    from PIL import Image

    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows = [("file", "label")]
    for letter, forms in _drawn(letters, rng):
        for number in range(each):
            points = forms[number % len(forms)]
            name = f"{ord(letter):05x}-{number:02d}.png"
            Image.fromarray(~_written(points, rng)).save(out / name)
            rows.append((name, f"u{ord(letter):05x}"))
    path = out / "labels.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def _drawn(count: int, rng: np.random.Generator) -> list[tuple[str, list[Points]]]:
    """Letters, each with its lines in some typefaces: points (n, 2) about the middle, in sides of the picture."""
    import matplotlib
    from PIL import ImageFont

    places = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    faces = [ImageFont.truetype(str(places / name), _SIZE) for name in _FACES]
    unknown = [_picture(face, "\U0010ffff") for face in faces]
    letters = [chr(c) for c in range(0x41, 0x3000) if unicodedata.category(chr(c)) in {"Lu", "Ll", "Lo"}]
    letters = [c for c in letters if not unicodedata.decomposition(c)]
    rng.shuffle(letters)
    found: list[tuple[str, list[Points]]] = []
    seen: list[Points] = []
    for letter in letters:
        forms, looks = [], None
        for face, missing in zip(faces, unknown, strict=True):
            picture = _picture(face, letter)
            if picture is None or (missing is not None and np.array_equal(picture, missing)):
                continue
            line = thinned(picture)
            if line.sum() < _LEAST_POINTS:
                continue
            forms.append(_centred(line))
            looks = _looks(forms[-1]) if looks is None else looks
        if looks is None or (seen and np.max(np.stack(seen) @ looks) > _ALIKE):
            continue
        seen.append(looks)
        found.append((letter, forms))
        if len(found) == count:
            break
    return found


def _picture(face: FreeTypeFont, letter: str) -> Bits | None:
    from PIL import Image, ImageDraw

    left, top, right, bottom = face.getbbox(letter)
    if right <= left or bottom <= top:
        return None
    image = Image.new("L", (int(right - left) + 4, int(bottom - top) + 4), 0)
    ImageDraw.Draw(image).text((2 - left, 2 - top), letter, fill=255, font=face)
    return np.asarray(image) > 127


def thinned(picture: Bits) -> Bits:
    """Take pixels off the edges of strokes until lines are left; scikit-image, which can do it, has no other use here.

    References
    ----------
    Zhang and Suen, Communications of the ACM 27(3), 1984.
    """
    bits = np.pad(picture, 1)
    while True:
        before = bits.sum()
        for step in range(2):
            # Clockwise from the pixel above.
            p = [np.roll(bits, shift, (0, 1)) for shift in
                 ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))]  # fmt: skip
            around = np.sum(p, axis=0)
            turns = np.sum([~p[i] & p[(i + 1) % 8] for i in range(8)], axis=0)
            up, right, down, left = p[0], p[2], p[4], p[6]
            first = ~(up & right & down) if step == 0 else ~(up & right & left)
            second = ~(right & down & left) if step == 0 else ~(up & down & left)
            bits = bits & ~((around >= 2) & (around <= 6) & (turns == 1) & first & second)
        if bits.sum() == before:
            return bits[1:-1, 1:-1]


def _centred(line: Bits) -> Points:
    points = np.argwhere(line).astype(np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - (low + high) / 2) / _SIDE


def _looks(points: Points) -> Points:
    """A blurred, small picture of unit length, without its mean."""
    size = max(float(np.abs(points).max()), 1e-6)
    grid, _, _ = np.histogram2d(points[:, 0] / size, points[:, 1] / size, bins=24, range=((-1, 1), (-1, 1)))
    soft = ndimage.gaussian_filter(np.minimum(grid, 2.0), 1.2).ravel()
    soft -= soft.mean()
    return soft / np.linalg.norm(soft)


def _written(points: Points, rng: np.random.Generator) -> Bits:
    """Write lines in a way of their own: a picture whose ink is true."""
    turn, lean = rng.normal(0, _TURN / 2), rng.normal(0, _LEAN / 2)
    tall, wide = np.exp(rng.normal(0, _SCALE, 2) + rng.normal(0.1, _SCALE))
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ np.array(
        [[tall, 0], [lean, wide]]
    )
    moved = points @ matrix.T
    bends = rng.normal(0, _BEND / 2, (2, _KNOTS, _KNOTS))
    at = (moved + 0.5).clip(0, 1).T * (_KNOTS - 1)
    moved = moved + np.stack([ndimage.map_coordinates(b, at, order=3, mode="nearest") for b in bends], axis=1)
    moved = moved + rng.normal(0, _SHIFT, 2) + 0.5
    fine = 2  # so that what is stretched stays whole
    places = np.round(moved * _SIDE * fine).astype(int)
    inside = ((places >= 0) & (places < _SIDE * fine)).all(axis=1)
    ink = np.zeros((_SIDE * fine, _SIDE * fine), dtype=bool)
    ink[tuple(places[inside].T)] = True
    ink = ndimage.binary_dilation(ink, iterations=int(rng.integers(2, 4)))
    return ink.reshape(_SIDE, fine, _SIDE, fine).mean(axis=(1, 3)) > 0.4
