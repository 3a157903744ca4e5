"""Learn the portfolio of configs that a search starts with.

    python bench/portfolio/learn.py --data ../shared/data/tabular --out src/tidemill/search/portfolio/tabular.json

Runs candidate configs on the training part of every data set (never on its test part) and keeps out-of-fold predictions
in a cache folder, so that it can be stopped and started again. Then it chooses configs greedily: at each place of the
list the config that lowers the mean normalised loss of *the ensemble* of the list so far the most, for its time. So
what is chosen is good together, not alone.

The loss of a data set is normalised by the best and the median single config: 0 is the best one, 1 the middle.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tidemill.core.errors import SpaceError, TidemillError
from tidemill.core.objective import parse_objective
from tidemill.core.pack import pack, unpack
from tidemill.core.space import Space, config_key
from tidemill.core.task import Task
from tidemill.data import coerce
from tidemill.data.infer import infer_schema, infer_task
from tidemill.data.ingest import read
from tidemill.data.splits import make_folds
from tidemill.models import pool
from tidemill.models.tabular import pipeline
from tidemill.models.tabular._base import FitBudget, TableProfile, TabularData
from tidemill.models.tabular.encode import Encoder
from tidemill.search.ensembles.greedy import GreedyEnsembler
from tidemill.search.losses import Loss, of_objective
from tidemill.search.samplers.baseline import fit_into
from tidemill.search.samplers.portfolio import load


@dataclass
class Board:
    """One data set: its loss, and for every config that ran its predictions and seconds."""

    name: str
    task: Task
    loss: Loss
    predictions: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def single(self) -> dict[str, float]:
        """Loss of every config alone."""
        return {k: self.loss(p.astype(np.float64)) for k, p in self.predictions.items()}


def main() -> None:
    options = parse()
    options.cache.mkdir(parents=True, exist_ok=True)
    boards, partials = [], {}
    for folder in sorted(p.parent for p in options.data.glob("*/meta.json")):
        if options.sets and folder.name not in options.sets:
            continue
        board, known = run_set(folder, options)
        boards.append(board)
        partials |= known
    order = choose(boards, list(partials), options.length)
    write(options.out, boards, [(key, partials[key]) for key in order], options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets")
    parser.add_argument("--sets", nargs="*", help="only these")
    parser.add_argument("--out", type=Path, required=True, help="the portfolio to write")
    parser.add_argument("--cache", type=Path, default=Path(".tidemill/portfolio"), help="where predictions are kept")
    parser.add_argument(
        "--candidates", type=int, default=8, help="random configs for each family, beside the known ones"
    )
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--rows", type=int, default=12_000, help="at most so many rows of a set")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one config on one set")
    parser.add_argument("--length", type=int, default=24, help="configs in the portfolio")
    parser.add_argument("--families", nargs="*", help="only these")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def run_set(folder: Path, options: argparse.Namespace) -> tuple[Board, dict[str, dict[str, Any]]]:
    """Run all candidates on one set; what stands in the cache is not run again."""
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    raw = read(str(folder / "train.csv"))
    schema = infer_schema(raw, meta["target"])
    task = infer_task(raw, schema)
    raw = coerce.drop_unlabelled(raw, task)
    columns, y = coerce.to_columns(raw, schema), coerce.encode_target(raw, task)
    rows = np.arange(len(y))
    if len(rows) > options.rows:
        rows = np.sort(np.random.default_rng(options.seed).permutation(rows)[: options.rows])
        columns, y = {k: v[rows] for k, v in columns.items()}, y[rows]
    encoder = Encoder.fit(columns, schema)
    data = TabularData(encoder.transform(columns), encoder.features, y)
    folds = make_folds(task, y, k=options.folds, seed=options.seed)
    space = pool.space(task, TableProfile(len(y), encoder.features), options.families)
    board = Board(folder.name, task, of_objective(parse_objective("auto").resolve(task), task, y))
    known = {}
    for partial in candidates(task, space, options):
        config = fit_into(space, partial)
        if config is None:
            continue
        # A config is the same one on every set, however a space completes it there.
        key = config_key(partial)
        known[key] = partial
        words = (key, config_key(config), str(options.folds), str(options.rows), str(options.seed))
        place = options.cache / f"{folder.name}-{digest(*words)}.pack"
        found = unpack(place.read_bytes()) if place.exists() else run(config, task, data, folds, options)
        if not place.exists():
            place.write_bytes(pack(found))
        if found["error"] is None:
            board.predictions[key] = found["oof"]
            board.seconds[key] = found["seconds"]
        value = board.loss(found["oof"].astype(np.float64)) if found["error"] is None else found["error"]
        print(f"{folder.name:20s} {config['family']:12s} {found['seconds']:7.2f} s  {value}", flush=True)
    return board, known


def candidates(task: Task, space: Space, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Give the configs of the shipped portfolio and every family's default, then configs by chance."""
    yield from load(task.kind)
    for family, member in pool.families(options.families).items():
        yield {"family": family}
        rng = np.random.default_rng([options.seed, len(family), sum(map(ord, family))])
        profile = TableProfile(5_000, ())
        own = member.space(task, profile)
        for _ in range(options.candidates):
            drawn = {name: round_(value) for name, value in own.sample(rng).items()}
            for name, choices in member.treatment(task, profile).items():
                drawn[f"{family}.{name}"] = choices[int(rng.integers(len(choices)))]
            yield {"family": family, **drawn}


def round_(value: Any) -> Any:
    return float(f"{value:.3g}") if isinstance(value, float) else value


def digest(*words: str) -> str:
    return hashlib.sha256("|".join(words).encode()).hexdigest()[:20]


def run(
    config: dict[str, Any], task: Task, data: TabularData, folds: Any, options: argparse.Namespace
) -> dict[str, Any]:
    """Train a config on all folds."""
    begun = time.process_time()
    end = time.monotonic() + options.limit
    oof = np.zeros((len(data.x), task.n_outputs), dtype=np.float32)
    try:
        for place, (train, valid) in enumerate(folds):
            share = (end - time.monotonic()) / (len(folds) - place)
            if share <= 0:
                return {"error": "too slow", "seconds": options.limit, "oof": oof[:1]}
            budget = FitBudget(deadline=time.monotonic() + share, threads=1)
            fitted = pipeline.fit(config, task, data, train, valid, budget, options.seed + place)
            oof[valid] = fitted.predict(data.x[valid])
    except (TidemillError, SpaceError) as error:
        return {"error": str(error), "seconds": time.process_time() - begun, "oof": oof[:1]}
    return {"error": None, "seconds": time.process_time() - begun, "oof": oof}


def choose(boards: list[Board], keys: list[str], length: int) -> list[str]:
    """Choose greedily by the normalised loss of the ensemble of everything chosen so far."""
    scales = {}
    for board in boards:
        values = sorted(board.single().values())
        scales[board.name] = (values[0], max(float(np.median(values)) - values[0], 1e-9 * abs(values[0])))
    chosen: list[str] = []
    current = dict.fromkeys(scales, 1.0)
    while len(chosen) < min(length, len(keys)):
        best_key, best_rate, best_now = None, -np.inf, current
        for key in keys:
            if key in chosen:
                continue
            now, cost = dict(current), 0.0
            for board in boards:
                if key not in board.predictions:
                    continue
                members = [k for k in (*chosen, key) if k in board.predictions]
                low, spread = scales[board.name]
                now[board.name] = (ensemble_loss(board, members) - low) / spread
                cost += board.seconds[key]
            gain = float(np.mean([current[n] - now[n] for n in now]))
            # Gain for time: half of a config's price is what a portfolio can't choose.
            rate = gain / (0.5 + cost / len(boards)) ** 0.5
            if rate > best_rate:
                best_key, best_rate, best_now = key, rate, now
        if best_key is None:
            break
        chosen.append(best_key)
        current = best_now
        print(f"{len(chosen):3d}. {np.mean(list(current.values())):8.4f}  {best_key}", flush=True)
    return chosen


def ensemble_loss(board: Board, members: list[str]) -> float:
    """Loss of a greedy ensemble, or of the only member."""
    if len(members) == 1:
        return board.loss(board.predictions[members[0]].astype(np.float64))
    numbered = {i: board.predictions[k] for i, k in enumerate(members)}
    return GreedyEnsembler(16, bags=1).combine(numbered, board.loss, lambda weights: 0.0).loss


def write(
    path: Path, boards: list[Board], entries: list[tuple[str, dict[str, Any]]], options: argparse.Namespace
) -> None:
    """Write the portfolio; an entry names the kinds of task that it ran on where these are not all."""
    kinds = {b.task.kind.value for b in boards}
    configs = []
    for key, partial in entries:
        ran = sorted({b.task.kind.value for b in boards if key in b.predictions})
        configs.append({"config": partial} if set(ran) == kinds else {"kinds": ran, "config": partial})
    about = (
        f"Learned by bench/portfolio/learn.py on the training parts of {', '.join(b.name for b in boards)}; "
        f"{options.folds} folds, at most {options.rows} rows, seed {options.seed}."
    )
    path.write_text(json.dumps({"format": 1, "about": about, "configs": configs}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
