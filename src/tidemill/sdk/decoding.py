"""What is told of a bundle that searches for its texts."""

from __future__ import annotations

from tidemill.bundle.runner.beams import NETS
from tidemill.bundle.runtime import Bundle

_SOURCES = {"out_of_fold": "out of fold", "test": "on locked test rows"}


def decoding_of(bundle: Bundle) -> str:
    """How a bundle that reads lines comes to its texts."""
    decode = bundle.spec.decode
    if not decode:
        return "of the best path"
    nets = decode.get(NETS, 1)
    return f"searched for by beams of {decode['width']}" + (f", by {nets} nets together" if nets > 1 else "")


def searched_words(bundle: Bundle, metric: str) -> str:
    """Say in a sentence how well a bundle reads that searches for its texts; nothing of others."""
    if not bundle.spec.decode:
        return ""
    measured = [
        f"{m.name} {m.value:.4g} {_SOURCES.get(m.source, m.source)}" for m in bundle.spec.metrics if m.name == metric
    ]
    return f"Texts of the bundle are {decoding_of(bundle)}: {', '.join(measured)}."
