"""Rungs beside full training of every trial: the epochs that each takes, and the best score that each finds.

    python bench/deep/rungs.py --out rungs                    # mnist and cifar10, on one thread
    python bench/deep/rungs.py mnist --out rungs --configs 40

First curves are recorded: configs drawn from the space of the nets for images, those that cost too much left out, are
trained to their end, 9 epochs, as a search on rungs trains them: epoch after epoch, each from the checkpoint of the
last. After each epoch the net is judged on held-out images, as the rung that ends there would be. The record is kept in
--out, and what is there is not trained again.

Then searches are replayed on the record. For each of 5 seeds some of the configs are drawn, in an order of the seed.
Full training trains each to its end; rungs begin with each and decide as `RungSchedule` with the ladder of a fit does,
on one worker. A trial goes on from its checkpoint, so no epoch counts twice. Both ways look at the same held-out
images, once by log-loss, by which a fit decides where nobody says otherwise, and once by accuracy. How good the trials
that win are on images that decided nothing is told beside it.

Prints a Markdown table, and ends with 1 where the bar is missed: the same best score for at most a third of the epochs,
both in the mean of the seeds. "The same" is: worse by no more than the noise of one training, which is the standard
deviation of the best config's score over 5 seeds of its training.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fits
import numpy as np

from tidemill.core.errors import TrialError
from tidemill.core.metrics import get_metric
from tidemill.core.space import config_key
from tidemill.core.task import Task
from tidemill.core.trial import Config
from tidemill.models.training.budget import TrainBudget
from tidemill.models.vision import pool
from tidemill.models.vision._base import ImageData, ImageProfile
from tidemill.sdk.images import prepare_images
from tidemill.sdk.options import FitOptions
from tidemill.search.evaluate import all_scores
from tidemill.search.heldout.trial import torch_threads
from tidemill.search.rungs.ladder import Ladder
from tidemill.search.rungs.schedule import RungSchedule
from tidemill.testing.curves import simulate

SETS = ("mnist", "cifar10")
FAMILIES = ("quicknet", "resnet", "mobilenet", "resnet9")
LAYOUT = ("family", "width", "depth", "mirror")
"""What the cost of a config depends on."""
METRICS = ("log_loss", "accuracy")
EPOCHS = 9
HELD_OUT = 2_000
SEEDS = range(5)
SHARE = 1 / 3
"""Of the epochs of full training: the bar."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Images:
    """A set of images: some to learn from, some to decide by, and some that nobody looks at before the end."""

    task: Task
    profile: ImageProfile
    learned: ImageData
    held_out: ImageData
    locked: ImageData

    @classmethod
    def read(cls, folder: Path, rows: int) -> Images:
        """Read a set, and deal its training part; the locked images are its test part."""
        options = FitOptions(test=folder / "test_labels.csv")
        found = prepare_images(folder / "train_labels.csv", "label", options)
        order = np.random.default_rng(0).permutation(found.train)
        learned, held_out = np.sort(order[:rows]), np.sort(order[rows : rows + HELD_OUT])
        profile = ImageProfile.of(found.x[learned], mirrored=found.mirrored)
        parts = [ImageData(found.x, found.y, part) for part in (learned, held_out, found.test)]
        return cls(found.task, profile, *parts)

    def configs(self, number: int, flops: float) -> list[Config]:
        """Draw configs that cost at most so much for one image; more of them begin with the same ones."""
        space, rng = pool.space(self.task, self.profile, FAMILIES), np.random.default_rng(0)
        families = pool.families(FAMILIES)
        known: dict[str, float] = {}
        found: list[Config] = []
        while len(found) < number:
            config = space.sample(rng)
            layout = config_key({k: v for k, v in config.items() if k.rpartition(".")[2] in LAYOUT})
            if layout not in known:
                known[layout] = families[config["family"]].cost(config, self.task, self.profile).flops
            if known[layout] <= flops:
                found.append(config)
        return found

    def scores(self, net: Any, part: ImageData) -> dict[str, float]:
        """Judge a net on a part of the images."""
        every = all_scores(self.task, part.y[part.rows], net.predict(part.x[part.rows]).astype(np.float64))
        return {name: every[name] for name in METRICS}

    def trained(self, config: Config, seed: int) -> Record:
        """Train a config on a rung for every epoch; a training that fails has no scores from there on."""
        family, begun = pool.families([config["family"]])[config["family"]], time.process_time()
        found: Record = {"config": config, "seed": seed, "epochs": [], "locked": {}}
        with tempfile.TemporaryDirectory(prefix="tidemill-rungs-") as folder, torch_threads(1):
            for epochs in range(1, EPOCHS + 1):
                budget = TrainBudget(device="cpu", of=EPOCHS, epochs=epochs, folder=folder)
                try:
                    net = family.fit(config, self.task, self.profile, self.learned, self.held_out, budget, seed)
                except TrialError as error:
                    found["error"] = str(error)
                    break
                found["epochs"].append(self.scores(net, self.held_out))
            else:
                found["locked"] = self.scores(net, self.locked)
        return {**found, "cpu_s": round(time.process_time() - begun, 1)}


class Curves:
    """What a record says of configs by one metric; `tidemill.testing.curves.simulate` reads losses from it."""

    def __init__(self, trials: Sequence[Record], metric: str) -> None:
        self._metric = get_metric(metric)
        self._found = {config_key(t["config"]): [e[metric] for e in t["epochs"]] for t in trials}

    def loss(self, config: Config, epochs: float) -> float:
        """Held-out loss after so many epochs; infinite where the training had failed by then."""
        values = self._found[config_key(config)]
        return self._metric.loss(values[int(epochs) - 1]) if epochs <= len(values) else math.inf


# ------------------------------------------------------------------------------------------------------------ recording


def record(sets: Mapping[str, Images], given: argparse.Namespace) -> dict[str, Record]:
    """Train what is not yet recorded: the configs, one of each set in turn, and the best ones with other seeds."""
    kept = {name: _read(given.out / f"{name}.json", given) for name in sets}
    configs = {name: images.configs(given.configs, 1e6 * given.mflops) for name, images in sets.items()}
    for number in range(given.configs):
        for name, images in sets.items():
            if number >= len(kept[name]["trials"]):
                kept[name]["trials"].append(_told(name, number, images.trained(configs[name][number], number)))
                _write(given.out / f"{name}.json", kept[name])
    for name, images in sets.items():
        best = _best(kept[name]["trials"][: given.configs], METRICS[0])
        again = kept[name]["again"].setdefault(str(best), [])
        while len(again) < len(SEEDS) - 1:  # the seed of the first is its own number
            seed = 1_000 + len(again)
            again.append(_told(name, best, images.trained(kept[name]["trials"][best]["config"], seed)))
            _write(given.out / f"{name}.json", kept[name])
    return kept


def _read(path: Path, given: argparse.Namespace) -> Record:
    settings = {"images": given.images, "held_out": HELD_OUT, "mflops": given.mflops, "epochs": EPOCHS}
    if not path.exists():
        return {"settings": settings, "trials": [], "again": {}}
    kept: Record = json.loads(path.read_text())
    if kept["settings"] != settings:
        sys.exit(f"{path} was recorded with {kept['settings']}, but this is {settings}.")
    return kept


def _write(path: Path, kept: Record) -> None:
    """Replace the record as a whole, so that a kill loses one training at most."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(kept, indent=1) + "\n")
    os.replace(fresh, path)


def _told(name: str, number: int, found: Record) -> Record:
    scores = [round(e["accuracy"], 4) for e in found["epochs"]]
    print(f"{name} {number} {found['config']['family']}: {scores} {found['cpu_s']} s", file=sys.stderr, flush=True)
    return found


def _best(trials: Sequence[Record], metric: str) -> int:
    """Number of the trial with the least loss at its end; the first of those that are alike."""
    curves = Curves(trials, metric)
    return min(range(len(trials)), key=lambda n: (curves.loss(trials[n]["config"], EPOCHS), n))


# ------------------------------------------------------------------------------------------------------------ replaying


@dataclass(frozen=True)
class Replayed:
    """A search of one seed in both ways: losses of the trials that won; ``locked`` on images that decided nothing."""

    share: float
    full: float
    rungs: float
    same: bool
    locked: tuple[float, float]


def replay(trials: Sequence[Record], metric: str, drawn: int, seed: int) -> Replayed:
    """Draw trials and search among them, by full training and by rungs."""
    order = np.random.default_rng(seed).permutation(len(trials))[:drawn]
    some, measure = [trials[n] for n in order], get_metric(metric)
    best = _best(some, metric)
    done = simulate(
        RungSchedule(Ladder.of(EPOCHS)), Curves(some, metric), lambda _, number: some[number]["config"], len(some)
    )
    ends = [some[n]["epochs"][-1][metric] for n in (best, done.winner)]
    locked = [some[n]["locked"][metric] for n in (best, done.winner)]
    return Replayed(
        share=done.epochs / (EPOCHS * len(some)), full=measure.loss(ends[0]), rungs=measure.loss(ends[1]),
        same=best == done.winner, locked=(measure.loss(locked[0]), measure.loss(locked[1])),
    )  # fmt: skip


def noise(kept: Record, metric: str, configs: int) -> float:
    """Standard deviation of the best config's score over seeds of its training."""
    best = _best(kept["trials"][:configs], METRICS[0])
    runs = [kept["trials"][best], *kept["again"][str(best)]]
    return float(np.std([run["epochs"][-1][metric] for run in runs], ddof=1))


def summaries(kept: Mapping[str, Record], given: argparse.Namespace) -> Iterator[Record]:
    """Replay every set by every metric, and hold it against the bar."""
    for name, one in kept.items():
        trials = one["trials"][: given.configs]
        for metric in METRICS:
            found = [replay(trials, metric, given.drawn, seed) for seed in SEEDS]
            behind = float(np.mean([f.rungs - f.full for f in found]))
            share, chance = float(np.mean([f.share for f in found])), noise(one, metric, given.configs)
            yield {
                "set": name,
                "metric": metric,
                "share": share,
                "full": abs(float(np.mean([f.full for f in found]))),
                "rungs": abs(float(np.mean([f.rungs for f in found]))),
                "behind": behind,
                "noise": chance,
                "same": sum(f.same for f in found),
                "locked_behind": float(np.mean([f.locked[1] - f.locked[0] for f in found])),
                "kept": share <= SHARE and behind <= chance,
            }


def table(found: Sequence[Record], given: argparse.Namespace) -> str:
    """Write the results as Markdown, and the bar."""
    lines = [
        f"Of {given.configs} recorded trainings {given.drawn} are drawn for each of {len(SEEDS)} seeds.",
        "",
        "| set | decided by | share of epochs | best of full training | best of rungs | behind | noise of a training "
        "| same trial wins | behind on locked images | bar |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    lines += [
        f"| {r['set']} | {r['metric']} | {r['share']:.3f} | {r['full']:.4f} | {r['rungs']:.4f} | {r['behind']:+.4f} "
        f"| {r['noise']:.4f} | {r['same']} of {len(SEEDS)} | {r['locked_behind']:+.4f} "
        f"| {'pass' if r['kept'] else 'MISS'} |"
        for r in found
    ]
    return "\n".join(lines)


def main() -> None:
    """Record what is missing, replay, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", help=f"of {', '.join(SETS)}; default all")
    parser.add_argument("--configs", type=int, default=36, help="trainings to record of each set")
    parser.add_argument("--drawn", type=int, default=27, help="of these are drawn for each seed")
    parser.add_argument("--images", type=int, default=2_000, help="to learn from")
    parser.add_argument("--mflops", type=float, default=15, help="most that a config may cost for one image")
    parser.add_argument("--data", help="folder of the open data")
    parser.add_argument("--out", type=Path, required=True, help="keep records and results here")
    given = parser.parse_args()
    unknown = [s for s in given.sets if s not in SETS]
    if unknown or not 1 <= given.drawn <= given.configs:
        parser.error(f"Known are {', '.join(SETS)}, and no more can be drawn than there are.")
    given.out.mkdir(parents=True, exist_ok=True)
    folder = fits.data_folder(given.data, "image")
    kept = record({name: Images.read(folder / name, given.images) for name in given.sets or SETS}, given)
    found = list(summaries(kept, given))
    (given.out / "result.json").write_text(json.dumps(found, indent=1) + "\n")
    print(table(found, given))
    sys.exit(0 if all(r["kept"] for r in found) else 1)


if __name__ == "__main__":
    main()
