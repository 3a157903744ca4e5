"""Tidemill on images: accuracy on the test part that no fit ever saw, after a given time on this machine.

    python bench/deep/run.py mnist --time 5m
    python bench/deep/run.py cifar10 --time 20m --seed 1
    python bench/deep/run.py omniglot

The whole of each fit is timed, reading and export included; the bundle it leaves is what is measured. ``omniglot`` fits
twice at equal time: from the beginning, and from the weights of a study of other open images, which are letters of a
hundred other scripts, drawn from open typefaces as if written by hand (``glyphs.py``); ``typefaces.sh`` fetches those
once. What that study takes is told.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import fits
import glyphs

BARS = {"mnist": ("5m", 0.988), "cifar10": ("20m", 0.70), "omniglot": ("1m", 0.30)}
"""Time of each set, and the accuracy that is asked; of omniglot the share of errors that weights must save."""
PRETRAINING = ("20m", "--family", "quicknet", "--trials", "1")
"""A trial gets no more than a part of the time that there is, and what comes after the first one is not needed."""
LETTERS, EACH = 1000, 32
"""Classes that are learned before omniglot's, and pictures of each."""
SIDE = "32"
"""Pixels of a side, for both fits of omniglot and for what they begin from."""


def fit(table: Path, out: Path, name: str, limit: str, given: argparse.Namespace, *more: str) -> dict[str, Any]:
    """Fit on a table of images, and describe the bundle."""
    return fits.fit(table, out, name, limit, given, "--target", "label", "--kind", "image-classification", *more)


def accuracy(bundle: Path, table: Path) -> float:
    """Measure a bundle on labelled images."""
    return fits.measured(bundle, table)["accuracy"]


def one_set(folder: Path, out: Path, name: str, limit: str, given: argparse.Namespace) -> dict[str, Any]:
    """Fit on the training part, and measure the bundle on the test part."""
    if name == "omniglot":
        return omniglot(folder, out, limit, given)
    found = fit(folder / name / "train_labels.csv", out, name, limit, given)
    found["accuracy"] = accuracy(out / f"{name}.tm", folder / name / "test_labels.csv")
    return {**found, "value": found["accuracy"]}


def omniglot(folder: Path, out: Path, limit: str, given: argparse.Namespace) -> dict[str, Any]:
    """Fit twice at equal time, once from the weights of a study of letters."""
    letters = glyphs.write(out / "letters", letters=LETTERS, each=EACH, seed=given.seed)
    side = ("--image-size", SIDE)
    limit_before, *alone = PRETRAINING
    before = fit(letters, out, "letters", limit_before, given, *side, *alone)
    data = folder / "omniglot_fewshot"
    found: dict[str, Any] = {"pretraining": before}
    for name, more in (("scratch", ()), ("weights", ("--weights", "letters"))):
        found[name] = fit(data / "train_labels.csv", out, name, limit, given, *side, *more)
        found[name]["accuracy"] = accuracy(out / f"{name}.tm", data / "test_labels.csv")
    wrong, fewer = (1 - found[name]["accuracy"] for name in ("scratch", "weights"))
    return {**found, "value": 1 - fewer / wrong if wrong else 0.0}


if __name__ == "__main__":
    fits.run_sets(fits.parser_for(__doc__, BARS), BARS, "image", one_set)
