"""Tidemill on images: accuracy on the test part that no fit ever saw, after a given time on this machine.

    python bench/deep/run.py mnist --time 5m
    python bench/deep/run.py cifar10 --time 20m --seed 1
    python bench/deep/run.py omniglot

The whole of each fit is timed, reading and export included; the bundle it leaves is what is measured. ``omniglot`` fits
twice at equal time: from the beginning, and from the weights of a study of other open images, which are the digits of
mnist as ink on paper, each turned or mirrored in one of eight ways that its class names. What that study takes is told.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sets import parser, run_sets

BARS = {"mnist": ("5m", 0.988), "cifar10": ("20m", 0.70), "omniglot": ("3m", 0.30)}
"""Time of each set, and the accuracy that is asked; of omniglot the share of errors that weights must save."""
PRETRAINING = "5m"
SIDE = "32"
"""Pixels of a side, for both fits of omniglot and for what they begin from."""


def fit(table: Path, out: Path, name: str, limit: str, given: argparse.Namespace, *more: str) -> dict[str, Any]:
    """Fit on a table of images, and describe the bundle."""
    tidemill = str(Path(sys.executable).with_name("tidemill"))
    command = [
        tidemill, "fit", str(table), "--target", "label", "--kind", "image-classification", "--name", name,
        "--time", limit, "--test-size", "0", "--seed", str(given.seed), "--out", str(out / f"{name}.tm"),
        "--workspace", str(out / "workspace"), "--json", *(["--cpus", str(given.cpus)] if given.cpus else []), *more,
    ]  # fmt: skip
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - begun
    (out / f"{name}.jsonl").write_text(done.stdout)
    if done.returncode:
        sys.exit(f"tidemill fit ended with {done.returncode}:\n{done.stderr[-4000:]}")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    finished = [e for e in events if e["event"] == "finished"]
    facts = json.loads((out / f"{name}.tm" / "bundle.json").read_text())
    return {
        "seconds": round(seconds, 1),
        "first_answer_s": finished[0]["elapsed_s"] if finished else None,
        "trials": len(finished),
        "members": [m["name"] for m in facts["members"]],
        "size_bytes": (out / f"{name}.tm" / "1" / "model.onnx").stat().st_size,
        "one_image_ms": facts["cost"]["latency_ms"],
        "max_abs_dp": facts["parity"]["max_abs_dp"],
    }


def accuracy(bundle: Path, table: Path) -> float:
    """Measure a bundle on labelled images."""
    tidemill = str(Path(sys.executable).with_name("tidemill"))
    command = [tidemill, "evaluate", str(bundle), str(table), "--json"]
    measured = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(measured.stdout)["accuracy"])


def one_set(folder: Path, out: Path, name: str, limit: str, given: argparse.Namespace) -> dict[str, Any]:
    """Fit on the training part, and measure the bundle on the test part."""
    found = fit(folder / name / "train_labels.csv", out, name, limit, given)
    found["accuracy"] = accuracy(out / f"{name}.tm", folder / name / "test_labels.csv")
    return {**found, "value": found["accuracy"]}


def omniglot(folder: Path, out: Path, limit: str, given: argparse.Namespace) -> dict[str, Any]:
    """Fit twice at equal time, once from the weights of a study of turned digits."""
    turned = strokes(folder / "mnist", out / "turned", given.seed)
    side = ("--image-size", SIDE)
    before = fit(turned, out, "strokes", PRETRAINING, given, *side, "--family", "quicknet")
    data = folder / "omniglot_fewshot"
    found: dict[str, Any] = {"pretraining": before}
    for name, more in (("scratch", ()), ("weights", ("--weights", "strokes"))):
        found[name] = fit(data / "train_labels.csv", out, name, limit, given, *side, *more)
        found[name]["accuracy"] = accuracy(out / f"{name}.tm", data / "test_labels.csv")
    wrong, fewer = (1 - found[name]["accuracy"] for name in ("scratch", "weights"))
    return {**found, "value": 1 - fewer / wrong if wrong else 0.0}


def strokes(digits: Path, out: Path, seed: int) -> Path:
    """Write the digits as ink on paper, each turned or mirrored in one of eight ways, and a table of their classes."""
    from PIL import Image, ImageOps

    out.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    rows: list[Sequence[str]] = [("file", "label")]
    with zipfile.ZipFile(digits / "train.zip") as archive, (digits / "train_labels.csv").open(newline="") as table:
        names = {Path(n).name: n for n in archive.namelist()}
        for row in csv.DictReader(table):
            stored = row["file"] if row["file"] in archive.NameToInfo else names[Path(row["file"]).name]
            image = ImageOps.invert(Image.open(io.BytesIO(archive.read(stored))).convert("L"))
            way = draw.randrange(8)
            image = image.rotate(90 * (way % 4))
            image = ImageOps.mirror(image) if way >= 4 else image
            name = f"{len(rows):05d}.png"
            image.save(out / name)
            rows.append((name, f"{row['label']}-{way}"))
    path = out / "labels.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def one(folder: Path, out: Path, name: str, limit: str, given: argparse.Namespace) -> dict[str, Any]:
    if name == "omniglot":
        return omniglot(folder, out, limit, given)
    return one_set(folder, out, name, limit, given)


if __name__ == "__main__":
    run_sets(parser(__doc__, BARS).parse_args(), BARS, "image", one)
