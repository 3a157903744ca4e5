"""The page for Prometheus: read back by a strict reader of the exposition format."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tidemill.deploy.types import RequestEvent
from tidemill.deploy.watch.counting import count_batches, count_requests
from tidemill.deploy.watch.prometheus import Page, add_window
from tidemill.deploy.watch.recent import Batch
from tidemill.deploy.watch.window import Window

HEAD = re.compile(r"# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)")
SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(.*)\})? (NaN|[+-]Inf|[-+0-9.e]+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)')

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: str) -> tuple[dict[str, str], Samples]:
    """Types and samples; anything that the format does not allow is an error."""
    assert text.endswith("\n")
    types: dict[str, str] = {}
    samples: Samples = {}
    current = ""
    for line in text.split("\n")[:-1]:
        if line.startswith("#"):
            head = HEAD.fullmatch(line)
            assert head, line
            if head[1] == "TYPE":
                assert head[2] not in types, f"{head[2]} appears twice"
                assert head[3] in ("counter", "gauge", "histogram")
                types[head[2]] = head[3]
                current = head[2]
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample, line
        name = sample[1]
        endings = ("_bucket", "_sum", "_count") if types[current] == "histogram" else ("",)
        assert name in {current + e for e in endings}, f"{name} stands under {current}"
        labels, at = [], 0
        while sample[3] and at < len(sample[3]):
            label = LABEL.match(sample[3], at)
            assert label, line
            value = re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), label[2])
            labels.append((label[1], value))
            at = label.end()
        key = (name, tuple(sorted(labels)))
        assert key not in samples, f"{key} appears twice"
        samples[key] = float(sample[4].replace("Inf", "inf"))
    return types, samples


def filled() -> Window:
    window = Window()
    events = [
        RequestEvent("e", "r", f"{k}", 200 if k % 3 else 500, 1, 0.1 * k, 0.01, 1.0 * k, 0.2, 2.0 * k)
        for k in range(200)
    ]
    count_requests(window, events, target_ms=100.0, now=1000.0)
    p = np.linspace(0, 1, 50)
    outputs = {"label": np.array(['a"b\\c\nd'] * 50, dtype=object), "probabilities": np.stack([1 - p, p], axis=1)}
    count_batches(window, [Batch("r", {}, outputs, [f"{k}" for k in range(50)], 0.0)])
    window.drift = {"features": [{"name": 'x "1"', "psi": 0.1, "ks": 0.2, "missing": 0.0, "new": None, "alarm": True}]}
    window.estimate = {"values": {"accuracy": 0.9}}
    return window


def test_a_strict_reader_reads_the_page() -> None:
    page = Page()
    for revision in ("a1", "b2"):
        add_window(page, filled(), {"endpoint": "fraud", "revision": revision}, now=1000.0)
    types, samples = read(page.text())
    here = (("endpoint", "fraud"), ("revision", "a1"))
    assert types["tidemill_requests_total"] == "counter"
    assert samples["tidemill_requests_total", here] == 200
    assert samples["tidemill_predictions_total", (here[0], ("label", 'a"b\\c\nd'), here[1])] == 50
    assert samples["tidemill_drift", (here[0], ("feature", 'x "1"'), ("measure", "psi"), here[1])] == 0.1
    assert samples["tidemill_slo_burn_rate", (*here, ("window", "1h"))] > 1
    assert all(n.endswith("_total") for n, kind in types.items() if kind == "counter")


def test_histograms_rise_to_their_count() -> None:
    page = Page()
    add_window(page, filled(), {"endpoint": "fraud", "revision": "a1"}, now=1000.0)
    _, samples = read(page.text())
    for stage in ("queue", "total"):
        shown = {
            dict(k[1])["le"]: v
            for k, v in samples.items()
            if k[0] == "tidemill_latency_seconds_bucket" and ("stage", stage) in k[1]
        }
        bounds = sorted(shown, key=float)
        assert [shown[b] for b in bounds] == sorted(shown.values())
        assert math.isinf(float(bounds[-1]))
        labels = tuple(sorted({"endpoint": "fraud", "revision": "a1", "stage": stage}.items()))
        assert shown[bounds[-1]] == samples["tidemill_latency_seconds_count", labels] == 200


@given(st.text(), st.floats())
def test_any_label_and_number_is_read_back(label: str, value: float) -> None:
    page = Page()
    page.add("tidemill_x", "gauge", "A line\nand \\ more.", {"name": label}, value)
    (found,) = read(page.text())[1].items()
    assert found[0] == ("tidemill_x", (("name", label),))
    assert found[1] == value or math.isnan(value)


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    import json

    root = Path(__file__).parents[3]
    board = json.loads((root / "docs" / "grafana" / "tidemill.json").read_text(encoding="utf-8"))
    page = Page()
    add_window(page, filled(), {"endpoint": "fraud", "revision": "a1"}, now=1000.0)
    known = {name for name, _ in read(page.text())[1]}
    known |= {"tidemill_worker_deaths_total", "tidemill_worker_memory_bytes", "tidemill_front_memory_bytes"}
    known |= {"tidemill_watch_dropped_total", "tidemill_watch_failures_total"}
    asked = {
        name
        for panel in board["panels"]
        for target in panel.get("targets", [])
        for name in re.findall(r"tidemill_\w+", target["expr"])
    }
    assert len(asked) > 10
    assert asked <= known
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
