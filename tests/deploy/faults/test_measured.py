"""Small runs of `bench.serving.faults` and `bench.serving.soak`: real processes, every answer checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

faults = pytest.importorskip("bench.serving.faults", reason="the programs that measure are not part of this copy")
soak = pytest.importorskip("bench.serving.soak", reason="the programs that measure are not part of this copy")


def test_a_line_that_rises_is_not_flat_and_a_noisy_one_is() -> None:
    steady = [(float(k), 60.0 + 0.3 * (-1) ** k) for k in range(40)]
    assert soak.judge(steady).flat
    assert soak.judge([(k, m + (30.0 if k in (9, 30) else 0.0)) for k, m in steady]).flat  # outliers
    assert soak.judge([(k, m + (20.0 if k < 7 else 0.0)) for k, m in steady]).flat  # the warm-up
    leak = soak.judge([(k, m + 0.1 * k) for k, m in steady])
    assert not leak.flat
    assert leak.growth_mib == pytest.approx(3.9, abs=0.2)
    with pytest.raises(ValueError, match="ten samples"):
        soak.judge(steady[:9])


def test_a_row_that_lost_something_does_not_hold() -> None:
    row = {"what": "x", "lost": 0, "wrong": 0, "ok": 5}
    assert faults.held(row)
    for change in ({"lost": 1}, {"wrong": 1}, {"effect_s": 1.2}):
        assert not faults.held(row | change)
        assert "NO" in faults.table([row | change])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_workers_lose_nothing(tmp_path: Path) -> None:
    (row,) = faults.kill(tmp_path, kills=4)
    assert faults.held(row), row
    assert row["ok"] > 200
    assert row["refused"] == 0
    assert row["deaths"] == 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_changes_lose_nothing(tmp_path: Path) -> None:
    rows = faults.change(tmp_path, settle_s=1.0)
    assert [r for r in rows if not faults.held(r)] == [], json.dumps(rows, indent=1)
    assert all(r["ok"] > 0 for r in rows if r["what"] != "the end")
    assert {"hot swap", "rollback", "canary to the end", "front-1 drained", "control killed"} <= {
        r["what"] for r in rows
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_callers_that_try_again_survive_the_death_of_a_front(tmp_path: Path) -> None:
    (row,) = faults.front(tmp_path, kills=2)
    assert faults.held(row), row
    assert row["ok"] > 50


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_memory_is_flat_over_requests_and_over_load_and_unload(tmp_path: Path) -> None:
    for row in soak.soak(tmp_path, "serve", 20_000, 30):
        assert row["flat"], row
        assert row["wrong"] == 0
