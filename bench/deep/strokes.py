"""From the picture of a letter to the strokes of a pen that could have drawn it, and from strokes to a picture.

A picture is thinned to lines; lines are followed from end to end and through crossings, where they go straight on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Bits = NDArray[np.bool_]
Points = NDArray[np.float64]
"""Shape (n, 2): right and down."""
Pixel = tuple[int, int]

_AROUND = ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
_SPUR = 4
"""Lines of no more pixels with one loose end are left by the thinning."""
_RING = 12
"""Longer lines whose ends meet are rings."""
_TOUCHING = 2
"""Pixels between ends that meet in a crossing."""
_STRAIGHT = 0.75
"""Cosine between two lines that are one stroke."""
_LOOKED_BACK = 7
"""Pixels by which the direction of an end is told."""
_SMOOTH, _STEP = 1.5, 9
"""Pixels: of the smoothing of a line, and between its points."""
_FINE = 2
"""Pictures are drawn so many times as large, and then made smaller."""
_CURVE = 12
"""Places between two points of a stroke."""


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


def traced(line: Bits) -> list[Points]:
    """Strokes of a thinned picture: a few points each, one for a dot."""
    links = _links(line)
    paths = [np.array(p, dtype=np.float64) for p in _paths(links)]
    dots = [np.array([p[::-1]], dtype=np.float64) for p, others in links.items() if not others]
    return [_spaced(p) for p in _joined(paths) if len(p) > _TOUCHING] + dots


def _links(line: Bits) -> dict[Pixel, list[Pixel]]:
    """Neighbours of each pixel; those that a straight step reaches as well are none across the corner."""
    pixels = {(int(row), int(column)) for row, column in np.argwhere(line)}

    def neighbours(row: int, column: int) -> list[Pixel]:
        return [
            (row + down, column + right) for down, right in _AROUND
            if (row + down, column + right) in pixels
            and not (down and right and ((row, column + right) in pixels or (row + down, column) in pixels))
        ]  # fmt: skip

    return {pixel: neighbours(*pixel) for pixel in sorted(pixels)}


def _paths(links: dict[Pixel, list[Pixel]]) -> list[list[Pixel]]:
    """Ways from each end or crossing to the next one, then rings; without spurs."""
    gone: set[frozenset[Pixel]] = set()

    def walk(start: Pixel, then: Pixel) -> list[Pixel]:
        path = [start, then]
        gone.add(frozenset(path))
        while len(links[path[-1]]) == 2:
            ahead = [p for p in links[path[-1]] if frozenset((path[-1], p)) not in gone]
            if not ahead:
                break
            gone.add(frozenset((path[-1], ahead[0])))
            path.append(ahead[0])
        return path

    nodes = [p for p, others in links.items() if len(others) != 2]
    starts = nodes + [p for p, others in links.items() if len(others) == 2]
    found = [walk(p, q) for p in starts for q in links[p] if frozenset((p, q)) not in gone]
    loose = [(len(links[p[0]]) == 1) + (len(links[p[-1]]) == 1) for p in found]
    return [p for p, ends in zip(found, loose, strict=True) if len(p) > _SPUR or ends != 1]


def _joined(paths: list[Points]) -> list[Points]:
    """Join what goes straight on through a crossing, the straightest first."""
    while True:
        turned = [(i, ahead) for i in range(len(paths)) for ahead in (paths[i], paths[i][::-1])]
        pairs = [
            (_straightness(one, other), i, j, one, other)
            for i, one in turned for j, other in turned
            if i < j and np.abs(one[-1] - other[0]).max() <= _TOUCHING
        ]  # fmt: skip
        best = max(pairs, key=lambda pair: pair[0], default=None)
        if best is None or best[0] < _STRAIGHT:
            return paths
        _, i, j, one, other = best
        paths = [p for k, p in enumerate(paths) if k not in (i, j)] + [np.vstack([one, other])]


def _straightness(one: Points, other: Points) -> float:
    """Cosine between the direction in which a line ends and the one in which another begins."""
    out = one[-1] - one[-min(len(one), _LOOKED_BACK + 1)]
    into = other[min(len(other), _LOOKED_BACK + 1) - 1] - other[0]
    return float(out @ into / max(np.linalg.norm(out) * np.linalg.norm(into), 1e-9))


def _spaced(path: Points) -> Points:
    """Smooth pixels (row, column), and take a point (right, down) every few of them."""
    ring = len(path) > _RING and np.abs(path[0] - path[-1]).max() <= _TOUCHING
    soft = ndimage.gaussian_filter1d(path, _SMOOTH, axis=0, mode="wrap" if ring else "nearest")
    soft = np.vstack([soft, soft[:1]]) if ring else np.vstack([path[:1], soft[1:-1], path[-1:]])
    way = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(soft, axis=0), axis=1))])
    places = np.linspace(0, way[-1], max(2, round(way[-1] / _STEP) + 1))
    return np.stack([np.interp(places, way, soft[:, 1]), np.interp(places, way, soft[:, 0])], axis=1)


def curve(points: Points) -> Points:
    """Go smoothly through all points of a stroke (Catmull and Rom, 1974)."""
    if len(points) < 3:
        return points
    p = np.vstack([2 * points[0] - points[1], points, 2 * points[-1] - points[-2]])
    t = np.linspace(0, 1, _CURVE, endpoint=False)[:, None]
    before, here, there, after = p[:-3, None], p[1:-2, None], p[2:-1, None], p[3:, None]
    bent = (2 * before - 5 * here + 4 * there - after) * t**2 + (3 * here - before - 3 * there + after) * t**3
    between = here + ((there - before) * t + bent) / 2
    return np.vstack([between.reshape(-1, 2), points[-1:]])


def drawn(lines: list[Points], side: int, thickness: float) -> Bits:
    """Draw lines with a round pen; points and thickness are in pixels, ink is true."""
    from PIL import Image, ImageDraw

    image = Image.new("L", (side * _FINE, side * _FINE), 0)
    draw = ImageDraw.Draw(image)
    radius = thickness * _FINE / 2
    for line in lines:
        places = [(float(x), float(y)) for x, y in line * _FINE]
        draw.line(places, fill=255, width=round(2 * radius), joint="curve")
        for x, y in (places[0], places[-1]):
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)
    fine = np.asarray(image).reshape(side, _FINE, side, _FINE)
    return np.asarray(fine.mean(axis=(1, 3)) > 110)
