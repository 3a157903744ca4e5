"""Memory that the planner foresees, beside what training takes: twenty models, each in a process of its own.

    .venv/bin/python bench/deep/memory.py                    # on this machine's processors, or its GPU
    .venv/bin/python bench/deep/memory.py --only resnet,gpt

Three optimiser steps each. Prints a Markdown table, and the bar with "pass" or "MISS": within 15 % on processors, 10 %
on a GPU.
On processors the peak is that of resident memory, with large blocks given back at once (MALLOC_MMAP_THRESHOLD_).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

MOST_S = 600
BARS = {"cpu": 0.15, "cuda": 0.10}


def main() -> None:
    """Read the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names that begin so, with commas")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure is not None:
        print(json.dumps(measure(given.measure)))
        return
    from models import cases

    only = tuple(n.strip() for n in given.only.split(",") if n.strip())
    found = []
    for number, case in enumerate(cases()):
        if not only or case.name.startswith(only):
            found.append(child(number))
            print(f"{case.name}: {found[-1]}", file=sys.stderr)
    print(table(found))
    if given.out:
        given.out.write_text(json.dumps(found, indent=2) + "\n")


def child(number: int) -> dict[str, Any]:
    """Measure a model in a process of its own."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--measure", str(number)],
            capture_output=True, text=True, env=environment, check=False, timeout=MOST_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": f"it took longer than {MOST_S} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["it died"])[-1][:200]}
    return json.loads(done.stdout.splitlines()[-1])


def measure(number: int) -> dict[str, Any]:
    """Plan and train one model in this process."""
    import numpy as np
    import torch
    from models import cases, cross_entropy

    from tidemill.train.planner.choose import plan
    from tidemill.train.planner.hardware import preset
    from tidemill.train.runtime import train
    from tidemill.train.types import Placement, Recipe

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    case = cases()[number]
    # Libraries that a first training loads are not the model's.
    small = cases()[0]
    warm = replace(small.samples, shape=(64,))
    train(torch.nn.Sequential(torch.nn.Linear(64, 10)).requires_grad_(), lambda o, t: cross_entropy(o, t),
          _Renamed(warm), Recipe(batch=8, epochs=8 * 3 / len(warm), optimizer=case.optimizer),
          plan=Placement(device=kind, micro_batch=4))  # fmt: skip
    torch.manual_seed(0)
    module = case.make()
    example = case.samples.batch(np.arange(2), train=False, rng=np.random.default_rng(0))
    if any(isinstance(m, torch.nn.LazyLinear) for m in module.modules()):
        with torch.no_grad():
            module(**example[0])
    recipe = Recipe(
        batch=case.micro_batch, epochs=3 * case.micro_batch / len(case.samples), optimizer=case.optimizer,
        precision="bf16" if kind == "cuda" else "fp32",
    )  # fmt: skip
    placement = Placement(device=kind, micro_batch=case.micro_batch, recompute=case.recompute)
    hardware = replace(preset("h100" if kind == "cuda" else "cpu"), context_bytes=0)
    planned = plan(module, cross_entropy, example, recipe, hardware, placement=placement)
    done = train(module, cross_entropy, case.samples, recipe, plan=placement)
    return {
        "name": case.name,
        "kind": kind,
        "parameters": planned.parameters,
        "planned": planned.estimate.memory_bytes,
        "measured": done.peak_bytes,
        "off": planned.estimate.memory_bytes / done.peak_bytes - 1,
        "parts": asdict(planned.estimate)["memory"],
    }


class _Renamed:
    """The same samples under the name that a bare layer wants."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def batch(self, indices: Any, *, train: bool, rng: Any) -> tuple[dict[str, Any], Any]:
        inputs, targets = self.inner.batch(indices, train=train, rng=rng)
        return {"input": inputs["x"]}, targets


def table(found: list[dict[str, Any]]) -> str:
    """Write the results as Markdown, and the bar."""
    lines = ["| model | parameters | planned | measured | off |", "|---|---:|---:|---:|---:|"]
    for row in found:
        if "error" in row:
            lines.append(f"| {row.get('name', '?')} | | | | {row['error']} |")
            continue
        planned, measured = (float(row[k]) / 1e6 for k in ("planned", "measured"))
        lines.append(
            f"| {row['name']} | {row['parameters']:,} | {planned:,.0f} MB | {measured:,.0f} MB | {row['off']:+.1%} |"
        )
    good = [r for r in found if "off" in r]
    bar = BARS[str(good[0]["kind"])] if good else 0.0
    within = sum(abs(float(r["off"])) <= bar for r in good)
    lines += ["", f"Within {bar:.0%}: {within} of {len(found)}: {'pass' if within == len(found) else 'MISS'}"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
