r"""AutoGluon MultiModal on a set of texts, with an encoder of one's own, within a time.

    bench/deep/environments.sh multimodal
    bench/.environments/multimodal/bin/python bench/deep/systems/fit_multimodal.py rt_polarity --weights ENCODER \
        --seconds 900

It tunes the encoder with the columns that it finds in the table. Its own choice of weights needs a download, so the
folder is named; everything else is its default.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from autogluon.multimodal import MultiModalPredictor

BEGAN = time.monotonic()
ROOT = Path(__file__).resolve().parents[3]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("set")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    places = [given.data] if given.data else [ROOT / "shared" / "data", ROOT.parent / "shared" / "data"]
    folder = next((p / "text" / given.set for p in places if (p / "text" / given.set).is_dir()), None)
    if folder is None:
        sys.exit("There is no open data here; name its folder with --data.")
    train, test = (pd.read_csv(folder / f"{part}.csv")[["text", "label"]] for part in ("train", "test"))
    chosen = {"model.names": ["hf_text"], "model.hf_text.checkpoint_name": str(given.weights.resolve())}
    with tempfile.TemporaryDirectory() as scratch:
        predictor = MultiModalPredictor(label="label", eval_metric="accuracy", path=f"{scratch}/model", verbosity=2)
        predictor.fit(train, time_limit=given.seconds, hyperparameters=chosen, seed=0)
        seconds = time.monotonic() - BEGAN
        answers = predictor.predict(test[["text"]], as_pandas=False)
    facts = {
        "system": "autogluon.multimodal", "set": given.set, "seconds": round(seconds, 1), "rows": len(train),
        "accuracy": float((answers == test["label"].to_numpy()).mean()),
    }  # fmt: skip
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
