"""AutoKeras on a set of images, within a time: it has no limit of its own, so trials are stopped from outside.

    bench/deep/environments.sh
    bench/.environments/autokeras/bin/python bench/deep/systems/fit_autokeras.py mnist --seconds 300

For three fifths of the time it searches; the trial that is under way then is its last. In the rest it trains the best
net again on all rows, as it always does. Its nets with weights from elsewhere need a download, and are trials that
fail where there is none.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import autokeras as ak
import keras
import numpy as np
from PIL import Image

BEGAN = time.monotonic()
SEARCHED = 0.6
ROOT = Path(__file__).resolve().parents[3]


class Deadline(keras.callbacks.Callback):
    """Stops a training when the time of its part is over, and the search with it; copies share what is ``known``."""

    known: ClassVar[dict[str, Any]] = {}

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """See what time it is."""
        now, tuner = time.monotonic(), self.known["tuner"]
        trials = tuner.oracle.trials
        searching = not self.known["over"]
        if searching and now > self.known["search_until"]:
            tuner.oracle.max_trials = len(trials)
            self.known["over"] = True
            self.model.stop_training = True
        if now > self.known["until"]:
            self.model.stop_training = True


def images(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    with (folder / f"{part}_labels.csv").open(newline="") as table, zipfile.ZipFile(folder / f"{part}.zip") as archive:
        rows = list(csv.DictReader(table))
        names = {Path(n).name: n for n in archive.namelist()}
        pixels = [np.asarray(Image.open(io.BytesIO(archive.read(names[Path(r["file"]).name])))) for r in rows]
    x = np.stack(pixels)
    return x if x.ndim == 4 else x[..., None], np.array([r["label"] for r in rows])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("set")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    places = [given.data] if given.data else [ROOT / "shared" / "data", ROOT.parent / "shared" / "data"]
    folder = next((p / "image" / given.set for p in places if (p / "image" / given.set).is_dir()), None)
    if folder is None:
        sys.exit("There is no open data here; name its folder with --data.")
    x, y = images(folder, "train")
    x_test, y_test = images(folder, "test")
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        model = ak.ImageClassifier(max_trials=1000, directory=scratch, overwrite=True, seed=0)
        Deadline.known = {
            "tuner": model.tuner, "over": False, "until": BEGAN + 0.97 * given.seconds,
            "search_until": BEGAN + SEARCHED * given.seconds,
        }  # fmt: skip
        model.fit(x, y, callbacks=[Deadline()], verbose=0)
        seconds = time.monotonic() - BEGAN
        answers = np.asarray(model.predict(x_test, verbose=0)).ravel().astype(str)
        trials = [t.status for t in model.tuner.oracle.trials.values()]
        parameters = model.export_model().count_params()
    facts = {
        "system": "autokeras", "set": given.set, "seconds": round(seconds, 1), "trials": len(trials),
        "completed": trials.count("COMPLETED"), "params": parameters, "accuracy": float((answers == y_test).mean()),
    }  # fmt: skip
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
