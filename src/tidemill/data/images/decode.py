"""One image file as pixels, whatever form it has; the same code reads images for training and beside a bundle."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_PIXELS = 80_000_000
"""A larger image is refused before it is unpacked: a file of a few kilobytes can claim gigabytes."""
_ALPHA = ("LA", "PA", "RGBA")
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
"""Forms that are read. Pillow knows more, some of which start other programs (EPS) or are rarely looked after."""


def decode(data: bytes, most_pixels: int = MOST_PIXELS) -> NDArray[np.uint8]:
    """Turn the bytes of an image file into pixels of shape (height, width, 3), red, green and blue.

    The first frame counts; it is turned as its EXIF data say; what is transparent stands on white; 16 bits become 8 by
    their upper half; grey, palette and CMYK become RGB.

    Parameters
    ----------
    data : bytes
        The file: PNG, JPEG, WebP, TIFF, BMP, GIF, PNM.
    most_pixels : int
        A larger image is refused before it is unpacked.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        At least one pixel.

    Raises
    ------
    ValueError
        With what is wrong: not an image, cut off, too large.

    Examples
    --------
    >>> decode(b"not an image")
    Traceback (most recent call last):
    ...
    ValueError: it is no image of a known form
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            size = image.width, image.height
            if size[0] * size[1] <= most_pixels:
                image.load()
                return np.ascontiguousarray(_rgb(ImageOps.exif_transpose(image)), dtype=np.uint8)
    except UnidentifiedImageError:
        raise ValueError("it is no image of a known form" if data else "the file is empty") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"it has more than {most_pixels:,} pixels") from None
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"it is damaged or cut off ({str(error)[:120]})") from error
    raise ValueError(f"it has {size[0]:,} × {size[1]:,} pixels, more than {most_pixels:,}")


def _rgb(image: Any) -> NDArray[Any]:
    if image.mode.startswith("I") or image.mode == "F":
        return np.repeat(_eight_bits(np.asarray(image))[..., None], 3, axis=2)
    if image.mode in _ALPHA or "transparency" in image.info:
        from PIL import Image

        front = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", front.size, "white"), front)
    return np.asarray(image.convert("RGB"))


def _eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey values of 16 bits, of whole numbers, or of fractions between 0 and 1, as 8 bits."""
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:  # in either order of bytes
        return (values >> 8).astype(np.uint8)
    known = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    top = float(known.max(initial=0.0))
    if values.dtype.kind == "f":
        known = known * 255.0 if top <= 1.0 else known
    elif top > 255:
        known = known / 257.0
    return np.clip(np.rint(known), 0, 255).astype(np.uint8)


def from_array(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Read an array as one image: (height, width), or with 1, 3 or 4 channels behind; uint8, or fractions of 1.

    Raises
    ------
    ValueError
        For another shape or type.

    Examples
    --------
    >>> from_array(np.zeros((4, 5), np.uint8)).shape
    (4, 5, 3)
    """
    values = np.asarray(values)
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4) or 0 in values.shape:
        raise ValueError(f"an image has the shape (height, width) or (height, width, 1, 3 or 4), not {values.shape}")
    if values.dtype.kind not in "biuf":
        raise ValueError(f"an image is made of numbers, not of {values.dtype}")
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * 255
    elif values.dtype != np.uint8:
        values = _eight_bits(values)
    if values.shape[2] == 4:
        alpha = values[..., 3:].astype(np.float64) / 255.0
        values = np.rint(values[..., :3] * alpha + 255.0 * (1.0 - alpha)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))
