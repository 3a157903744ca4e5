"""Tidemill through its command line, then the shipped file with onnxruntime."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import onnxruntime as ort
import pandas as pd
from _protocol import arguments, timed, write

given = arguments()
bundle = given.out / "model"
command = [
    str(Path(sys.executable).with_name("tidemill")), "fit", str(given.folder / "train.csv"),
    "--target", given.meta["target"], "--time", f"{given.time}s", "--test-size", "0", "--out", str(bundle),
    "--workspace", str(given.out / "workspace"), "--json",
]  # fmt: skip
if given.meta.get("positive") is not None:
    command += ["--positive", str(given.meta["positive"])]
begin = time.perf_counter()
done = subprocess.run(command, capture_output=True, text=True)
fit_s = time.perf_counter() - begin
if done.returncode:
    sys.exit(f"tidemill fit ended with {done.returncode}:\n{done.stderr[-4000:]}")
(given.out / "events.jsonl").write_text(done.stdout)

from tidemill.bundle.runtime import Bundle  # noqa: E402
from tidemill.data.coerce import to_columns  # noqa: E402
from tidemill.data.ingest import read  # noqa: E402

opened = Bundle.open(bundle)
columns = to_columns(read(given.folder / "test.csv"), opened.schema)
answers = opened.answer(columns)
if opened.task.kind.is_classification:
    scores, names = answers["probabilities"], list(opened.task.classes)
else:
    scores, names = answers["prediction"].reshape(-1, 1), ["prediction"]
pd.DataFrame(scores, columns=names).to_csv(given.out / "answers.csv", index=False)

# The bar speaks of plain onnxruntime: no class of ours between the caller and the session.
settings = ort.SessionOptions()
settings.intra_op_num_threads = 1
session = ort.InferenceSession(str(bundle / "1" / "model.onnx"), settings, providers=["CPUExecutionProvider"])
wanted = [o.name for o in session.get_outputs()]
one = {name: values[:1, None] for name, values in columns.items()}
two = ort.InferenceSession(str(bundle / "1" / "model.onnx"), providers=["CPUExecutionProvider"])
rows = len(next(iter(columns.values())))
batch = {name: values[:, None] for name, values in columns.items()}
facts = json.loads((bundle / "bundle.json").read_text())
write(
    given.out,
    fit_s=fit_s,
    size_bytes=(bundle / "1" / "model.onnx").stat().st_size,
    one_row_ms=timed(lambda: session.run(wanted, one)) * 1e3,
    rows_per_s=rows / timed(lambda: two.run(wanted, batch)),
    parity=facts.get("parity"),
    note="",
)
