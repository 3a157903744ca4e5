"""Tidemill on lines of text: what is read rightly on the test part that no fit ever saw.

    python bench/deep/lines.py captcha8 --time 25m
    python bench/deep/lines.py captcha8 --time 25m --drawn
    python bench/deep/lines.py early_printed_lines --time 6m

``captcha8`` is one fit; its bar is the share of whole strings that are right whatever the case of their letters. With
``--drawn`` it begins from a study of others, drawn in an open typeface (``captchas.py``) with characters as often as in
the training part; that study is the last of three, each of which goes on from the one before on other strings. Each may
take as long as the fit itself, and all are told.
``early_printed_lines`` compares at equal time: plain training of the default net, without distortions and from the
beginning; and a fit that distorts and begins from a study of other open lines, those of uw3_50lines and lines that are
drawn in open typefaces (``presses.py``), which ``typefaces.sh`` fetches. What that study takes is told: it is there
before, as weights are. The value is the share of plain training's character errors that is left.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fits import fit, measured, parser_for, run_sets

if TYPE_CHECKING:
    from PIL.Image import Image

BARS = {"captcha8": ("25m", 0.90), "early_printed_lines": ("6m", 0.6)}
"""Time of each fit, and what is asked: share of strings that are right; share of errors that may be left."""
WORDS = ("--target", "text", "--kind", "text-recognition")
DRAWN, DRAWN_CAPTCHAS = 6000, 40000
DRAWN_STUDIES = ("others", "more", "most")
"""Studies of drawn captchas, each from the weights of the one before."""
PRETRAINING = "20m"
"""Time of the study of drawn lines."""
_UNITS = {"s": 1, "m": 60, "h": 3600}


def captcha(folder: Path, out: Path, name: str, limit: str, given: argparse.Namespace) -> dict[str, Any]:
    words: tuple[str, ...] = (*WORDS, "--ignore-case", "--objective", "maximize exact")
    more: dict[str, Any] = {}
    if given.drawn:
        before: tuple[str, ...] = ()
        for number, study in enumerate(DRAWN_STUDIES):
            begun = time.monotonic()
            drawn = drawn_captchas(folder / name, out / f"drawn-{study}", given.seed + number)
            drawing_s = round(time.monotonic() - begun, 1)
            found = fit(drawn, out, study, limit, given, *words, *before, "--family", "svtr", "--trials", "1")
            more[study] = {"drawing_s": drawing_s, **found}
            before = ("--weights", study)
        words = (*words, *before)
    found = fit(folder / name / "train_labels.csv", out, name, limit, given, *words, "--decode", "beam")
    scores = measured(out / f"{name}.tm", folder / name / "test_labels.csv")
    return {**found, **scores, **more, "value": scores["exact_nocase"]}


def early(folder: Path, out: Path, name: str, limit: str, given: argparse.Namespace) -> dict[str, Any]:
    data = folder / name
    begun = time.monotonic()
    others = drawn(folder, data, out / "drawn", given.seed)
    drawing_s = time.monotonic() - begun
    plain = plainly(data, limit, given)
    (out / "plain.json").write_text(json.dumps({"cer": plain}))  # the dearest figure stays where a fit fails
    before = fit(others, out, "others", PRETRAINING, given, *WORDS, "--family", "crnn", "--trials", "1")
    words = (*WORDS, "--family", "crnn", "--weights", "others", "--decode", "beam")
    found = fit(data / "train_labels.csv", out, name, limit, given, *words)
    scores = measured(out / f"{name}.tm", data / "test_labels.csv")
    more = {"plain_cer": plain, "drawing_s": round(drawing_s, 1), "pretraining": before}
    return {**found, **scores, **more, "value": scores["cer"] / plain}


def plainly(data: Path, limit: str, given: argparse.Namespace) -> float:
    """Character error rate of the default net, trained as long on lines as they are."""
    import numpy as np
    import torch

    from tidemill.core.metrics import get_metric
    from tidemill.models.recognition import pool
    from tidemill.models.recognition._base import LineData
    from tidemill.models.training.budget import TrainBudget
    from tidemill.sdk.lines import prepare_lines
    from tidemill.sdk.options import FitOptions

    begun = time.monotonic()
    torch.set_num_threads(given.cpus or os.cpu_count() or 1)
    lines = prepare_lines(data / "train_labels.csv", "text", FitOptions(test=data / "test_labels.csv"))
    order = np.random.default_rng(given.seed).permutation(lines.train)
    valid, train = np.sort(order[: len(order) // 8]), np.sort(order[len(order) // 8 :])
    config = {**pool.space(lines.task, lines.profile, ["crnn"]).default(), "crnn.augment": 0.0, "crnn.views": 1}
    budget = TrainBudget(deadline=begun + float(limit[:-1]) * _UNITS[limit[-1]])
    net = pool.families(["crnn"])["crnn"].fit(
        config, lines.task, lines.profile, LineData(lines.x, lines.y, train), LineData(lines.x, lines.y, valid), budget,
        given.seed,
    )  # fmt: skip
    return get_metric("cer")(lines.y[lines.test], net.predict(lines.x[lines.test]), task=lines.task)


def drawn(folder: Path, data: Path, out: Path, seed: int) -> Path:
    """Print words of the training parts in open typefaces, and add the lines of uw3_50lines."""
    from presses import printed

    other = folder / "uw3_50lines"
    texts = [row["text"] for place in (data, other) for row in rows_of(place / "train_labels.csv")]
    path = written(printed(texts, DRAWN, seed), out)
    with path.open("a", newline="", encoding="utf-8") as file:
        for row in rows_of(other / "train_labels.csv"):
            name = f"uw3-{Path(row['file']).name}"
            (out / name).write_bytes((other / row["file"]).read_bytes())
            csv.writer(file).writerow((name, row["text"]))
    return path


def drawn_captchas(data: Path, out: Path, seed: int) -> Path:
    """Draw strings of as many characters as those of the training part have, with characters as often."""
    from captchas import drawn
    from PIL.Image import open as opened

    rows = rows_of(data / "train_labels.csv")
    size = opened(data / rows[0]["file"]).size
    counts = Counter("".join(row["text"] for row in rows))
    return written(drawn(counts, len(rows[0]["text"]), size, DRAWN_CAPTCHAS, seed), out)


def written(lines: Iterable[tuple[str, Image]], out: Path) -> Path:
    """Write images and the table of their texts."""
    out.mkdir(parents=True, exist_ok=True)
    rows = [("file", "text")]
    for number, (text, image) in enumerate(lines):
        image.save(out / f"{number:05d}.png")
        rows.append((f"{number:05d}.png", text))
    path = out / "labels.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def one_set(folder: Path, out: Path, name: str, limit: str, given: argparse.Namespace) -> dict[str, Any]:
    run = captcha if name == "captcha8" else early
    return run(folder, out, name, limit, given)


if __name__ == "__main__":
    parser = parser_for(__doc__, BARS)
    parser.add_argument("--drawn", action="store_true", help="let captcha8 begin from a study of drawn ones")
    run_sets(parser, BARS, "ocr", one_set, most=frozenset({"early_printed_lines"}))
