"""What the programs share that time whole fits: where data are, a fit, a measurement of its bundle, bars.

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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
Bars = Mapping[str, tuple[str, float]]
"""Time of each set, and the value that is asked."""
OneSet = Callable[[Path, Path, str, str, argparse.Namespace], dict[str, Any]]
"""From the folder of the data, a folder for results, name and limit to what came of it, with a ``value``."""


def data_folder(given: str | None, kind: str) -> Path:
    places = [Path(given)] if given else [ROOT / "shared" / "data", ROOT.parent / "shared" / "data"]
    found = next((p for p in places if (p / kind).is_dir()), None)
    if found is None:
        sys.exit("There is no open data here; name its folder with --data.")
    return found / kind


def program() -> str:
    return str(Path(sys.executable).with_name("tidemill"))


def fit(table: Path, out: Path, name: str, limit: str, given: argparse.Namespace, *words: str) -> dict[str, Any]:
    """Fit on a table without a test slice of its own, and describe the bundle."""
    command = [
        program(), "fit", str(table), *words, "--name", name, "--time", limit, "--test-size", "0",
        "--seed", str(given.seed), "--out", str(out / f"{name}.tm"), "--workspace", str(out / "workspace"), "--json",
        *(["--cpus", str(given.cpus)] if given.cpus else []),
    ]  # fmt: skip
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - begun
    (out / f"{name}.jsonl").write_text(done.stdout)
    if done.returncode:
        sys.exit(f"tidemill fit ended with {done.returncode}:\n{done.stderr[-4000:]}")
    finished = [e for e in map(json.loads, done.stdout.splitlines()) if e["event"] == "finished"]
    facts = json.loads((out / f"{name}.tm" / "bundle.json").read_text())
    return {
        "seconds": round(seconds, 1),
        "first_answer_s": finished[0]["elapsed_s"] if finished else None,
        "trials": len(finished),
        "members": [m["name"] for m in facts["members"]],
        "size_bytes": (out / f"{name}.tm" / "1" / "model.onnx").stat().st_size,
        "one_row_ms": facts["cost"]["latency_ms"],
        "max_abs_dp": facts["parity"]["max_abs_dp"],
    }


def measured(bundle: Path, table: Path) -> dict[str, float]:
    """Every metric of a bundle on rows with known answers."""
    command = [program(), "evaluate", str(bundle), str(table), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def parser_for(about: str, bars: Bars) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    parser.add_argument("sets", nargs="*", default=list(bars), help=f"of {', '.join(bars)}; default all")
    parser.add_argument("--time", help="limit of each fit; default that of the bar")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpus", type=int)
    parser.add_argument("--data", help="folder of the open data")
    parser.add_argument("--out", type=Path, help="keep bundles, events and results here")
    return parser


def run_sets(
    parser: argparse.ArgumentParser, bars: Bars, kind: str, one_set: OneSet, *, most: frozenset[str] = frozenset()
) -> None:
    """Run the sets that are asked for and end with 1 where a bar is missed; ``most`` are those whose bar is a bound."""
    given = parser.parse_args()
    unknown = [s for s in given.sets if s not in bars]
    if unknown:
        sys.exit(f"There is no set {unknown[0]!r}; known are {', '.join(bars)}.")
    folder = data_folder(given.data, kind)
    missed = False
    with tempfile.TemporaryDirectory(prefix="tidemill-deep-") as scratch:
        root = given.out or Path(scratch)
        for name in given.sets:
            limit, bar = bars[name]
            limit = given.time or limit
            out = root / f"{name}-{limit}-{given.seed}"
            out.mkdir(parents=True, exist_ok=True)
            result = {"set": name, "time": limit, "seed": given.seed, "cores": given.cpus or os.cpu_count(),
                      **one_set(folder, out, name, limit, given), "bar": bar}  # fmt: skip
            (out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
            print(json.dumps(result))
            missed |= result["value"] > bar if name in most else result["value"] < bar
    sys.exit(1 if missed else 0)
