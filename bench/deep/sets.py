"""What the programs about images and texts share: the sets, the time of each, and bars that are kept or missed."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OneSet = Callable[[Path, Path, str, str, argparse.Namespace], dict[str, Any]]
"""From the data, a folder to write to, the name of a set, its limit of time and the options to what has a ``value``."""


def parser(about: str, bars: Mapping[str, tuple[str, float]]) -> argparse.ArgumentParser:
    """Options that all of them have."""
    made = argparse.ArgumentParser(description=about.partition("\n")[0])
    made.add_argument("sets", nargs="*", default=list(bars), help=f"of {', '.join(bars)}; default all")
    made.add_argument("--time", help="limit of each fit; default that of the bar")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--cpus", type=int)
    made.add_argument("--data", help="folder of the open data")
    made.add_argument("--out", type=Path, help="keep bundles, events and results here")
    return made


def run_sets(given: argparse.Namespace, bars: Mapping[str, tuple[str, float]], kind: str, one: OneSet) -> None:
    """Run the sets that are asked for, print a line for each, and end the program: with 1 where a bar is missed."""
    unknown = [s for s in given.sets if s not in bars]
    if unknown:
        sys.exit(f"There is no set {unknown[0]!r}; known are {', '.join(bars)}.")
    folder = _data_folder(given.data, kind)
    missed = False
    with tempfile.TemporaryDirectory(prefix=f"tidemill-{kind}-") as scratch:
        root = given.out or Path(scratch)
        for name in given.sets:
            limit, bar = bars[name]
            limit = given.time or limit
            out = root / f"{name}-{limit}-{given.seed}"
            out.mkdir(parents=True, exist_ok=True)
            result = {"set": name, "time": limit, "seed": given.seed, "cores": given.cpus or os.cpu_count(),
                      **one(folder, out, name, limit, given), "bar": bar}  # fmt: skip
            (out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
            print(json.dumps(result))
            missed |= result["value"] < bar
    sys.exit(1 if missed else 0)


def _data_folder(given: str | None, kind: str) -> Path:
    places = [Path(given)] if given else [ROOT / "shared" / "data", ROOT.parent / "shared" / "data"]
    found = next((p for p in places if (p / kind).is_dir()), None)
    if found is None:
        sys.exit("There is no open data here; name its folder with --data.")
    return found / kind
