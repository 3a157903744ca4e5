"""Tidemill on images: accuracy on the test part that no fit ever saw, after a given time on this machine.

    python bench/deep/run.py mnist --time 5m
    python bench/deep/run.py cifar10 --time 20m --seed 1

The whole of each fit is timed, reading and export included; the bundle it leaves is what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BARS = {"mnist": ("5m", 0.988), "cifar10": ("20m", 0.70)}
"""Time and accuracy that are asked of each set."""
ROOT = Path(__file__).resolve().parents[2]


def data_folder(given: str | None) -> Path:
    places = [Path(given)] if given else [ROOT / "shared" / "data", ROOT.parent / "shared" / "data"]
    found = next((p for p in places if (p / "image").is_dir()), None)
    if found is None:
        sys.exit("There is no open data here; name its folder with --data.")
    return found / "image"


def fit(folder: Path, out: Path, limit: str, seed: int, cpus: int | None) -> dict[str, Any]:
    """Fit on the training part, and measure the bundle on the test part."""
    tidemill = str(Path(sys.executable).with_name("tidemill"))
    command = [
        tidemill, "fit", str(folder / "train_labels.csv"), "--target", "label", "--kind", "image-classification",
        "--time", limit, "--test-size", "0", "--seed", str(seed), "--out", str(out / "model.tm"),
        "--workspace", str(out / "workspace"), "--json", *(["--cpus", str(cpus)] if cpus else []),
    ]  # fmt: skip
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - begun
    (out / "events.jsonl").write_text(done.stdout)
    if done.returncode:
        sys.exit(f"tidemill fit ended with {done.returncode}:\n{done.stderr[-4000:]}")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    finished = [e for e in events if e["event"] == "finished"]
    measured = subprocess.run(
        [tidemill, "evaluate", str(out / "model.tm"), str(folder / "test_labels.csv"), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    facts = json.loads((out / "model.tm" / "bundle.json").read_text())
    return {
        "seconds": round(seconds, 1),
        "first_answer_s": finished[0]["elapsed_s"] if finished else None,
        "trials": len(finished),
        "accuracy": json.loads(measured.stdout)["accuracy"],
        "members": [m["name"] for m in facts["members"]],
        "size_bytes": (out / "model.tm" / "1" / "model.onnx").stat().st_size,
        "one_image_ms": facts["cost"]["latency_ms"],
        "max_abs_dp": facts["parity"]["max_abs_dp"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sets", nargs="*", default=list(BARS), help=f"of {', '.join(BARS)}; default all")
    parser.add_argument("--time", help="limit of each fit; default that of the bar")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpus", type=int)
    parser.add_argument("--data", help="folder of the open data")
    parser.add_argument("--out", type=Path, help="keep bundles, events and results here")
    given = parser.parse_args()
    unknown = [s for s in given.sets if s not in BARS]
    if unknown:
        sys.exit(f"There is no set {unknown[0]!r}; known are {', '.join(BARS)}.")
    folder = data_folder(given.data)
    missed = False
    with tempfile.TemporaryDirectory(prefix="tidemill-deep-") as scratch:
        root = given.out or Path(scratch)
        for name in given.sets:
            limit, bar = BARS[name]
            limit = given.time or limit
            out = root / f"{name}-{limit}-{given.seed}"
            out.mkdir(parents=True, exist_ok=True)
            result = {"set": name, "time": limit, "seed": given.seed, "cores": given.cpus or os.cpu_count(),
                      **fit(folder / name, out, limit, given.seed, given.cpus), "bar": bar}  # fmt: skip
            (out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
            print(json.dumps(result))
            missed |= result["accuracy"] < bar
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
