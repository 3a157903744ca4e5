"""Every placement beside one process: losses without a break, and gone on from every other placement's checkpoint.

    .venv/bin/python bench/deep/placements.py

A small language model, 20 steps of AdamW with clipping and averaged weights, batches of 26 samples, processes on this
machine with gloo. Prints a Markdown table of the largest difference of a step's loss, and the bar (1e-5) with "pass" or
"MISS". Times are not shown: several processes on a few cores say nothing about speed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

BAR = 1e-5


def main() -> None:
    """Print the table."""
    import torch
    from models import Noise, Speaker, cross_entropy

    from tidemill.train.runtime import train
    from tidemill.train.types import Limits, Placement, Recipe, Trained

    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    one = Placement(device="cpu", micro_batch=8)
    places = {
        "one process": one,
        "DDP x 2": replace(one, replicas=2),
        "FSDP2 x 2": replace(one, shards=2),
        "FSDP2 x 4": replace(one, shards=4),
        "HSDP 2 x 2": replace(one, replicas=2, shards=2),
    }
    samples = Noise((16,), 50, words=50, per_word=True, size=130)
    recipe = Recipe(batch=26, epochs=4, lr=3e-3, ema=0.9, checkpoint_s=1e9)

    def run(plan: Placement, folder: Path | None = None, limits: Limits | None = None) -> Trained:
        torch.manual_seed(0)
        return train(Speaker(50, 36, 2, 16), cross_entropy, samples, recipe, plan=plan, folder=folder, limits=limits)

    alone = run(one).losses
    worst = 0.0
    print("| first half \\ second half | " + " | ".join(places) + " |")
    print("|---|" + "---:|" * len(places))
    with tempfile.TemporaryDirectory() as folder:
        rows = [("(no break)", None), *places.items()]
        for name, first in rows:
            began = Path(folder) / name.replace(" ", "-")
            if first is not None:
                run(first, began, Limits(epochs=2))
            off = []
            for number, second in enumerate(places.values()):
                copy = began.with_name(f"{began.name}-{number}")
                if first is not None:
                    shutil.copytree(began, copy)
                losses = run(second, copy if first is not None else None).losses
                off.append(max(abs(a - b) for a, b in zip(losses, alone, strict=True)))
            worst = max(worst, *off)
            print(f"| {name} | " + " | ".join(f"{value:.1e}" for value in off) + " |", flush=True)
    print(f"\nLargest difference {worst:.1e}, bar {BAR:.0e}: {'pass' if worst <= BAR else 'MISS'}")


if __name__ == "__main__":
    main()
