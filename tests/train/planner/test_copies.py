"""Copies that convolutions make on processors."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="deep training needs the extra 'deep'")

from torch import nn

from tidemill.train.planner.copies import held_by
from tidemill.train.planner.trace import trace

ATEN = torch.ops.aten
MEASURE = """
import json, sys
import torch
from tidemill.train.planner.copies import held_by

def status(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))

def peak(work):
    work()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    out = work()
    return status("VmHWM") - before, out

torch.set_num_threads(1)
found = []
with torch.no_grad():
    for before, after, kernel in ((64, 64, 3), (96, 10, 1), (3, 48, 3)):
        x, weight = torch.randn(16, before, 64, 64), torch.randn(after, before, kernel, kernel)
        given = (x, weight, None, [1, 1], [kernel // 2] * 2, [1, 1], False, [0, 0], 1)
        measured, out = peak(lambda: torch.ops.aten.convolution.default(*given))
        found.append((held_by(torch.ops.aten.convolution.default, given, out), measured))
        back = (torch.ones_like(out), x, weight, None, *given[3:], [True, True, False])
        measured, grads = peak(lambda: torch.ops.aten.convolution_backward.default(*back))
        found.append((held_by(torch.ops.aten.convolution_backward.default, back, grads), measured))
print(json.dumps(found))
"""


def convolved(n: int, before: int, after: int, form: object = torch.contiguous_format) -> int:
    """What a convolution of such pictures holds."""
    x, weight = torch.empty(n, before, 8, 8, device="meta"), torch.empty(after, before, 3, 3, device="meta")
    args = (x.to(memory_format=form), weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)
    return held_by(ATEN.convolution.default, args, torch.empty(n, after, 8, 8, device="meta"))


@given(n=st.integers(1, 50), before=st.integers(1, 200), after=st.integers(1, 200))
def test_it_grows_with_the_samples_and_is_at_least_what_is_made(n: int, before: int, after: int) -> None:
    one = convolved(1, before, after)
    assert convolved(n, before, after) == n * one
    assert one >= 2 * 4 * after * 64  # in blocks, and as it was asked for


def test_nothing_is_copied_where_channels_are_last() -> None:
    assert convolved(4, 32, 32, torch.channels_last) == 0
    assert held_by(ATEN.relu.default, (torch.empty(3),), torch.empty(3)) == 0


@pytest.mark.parametrize("made", [[True, True, False], [False, True, True], [True, False, False]])
def test_backward_holds_only_what_it_is_asked_for(made: list[bool]) -> None:
    x = torch.empty(2, 64, 8, 8, device="meta")
    args = (x, x, torch.empty(64, 64, 3, 3), None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, made)
    assert held_by(ATEN.convolution_backward.default, args, ()) == {2: 3, 1: 2}[made[0] + made[1]] * x.nbytes


def test_a_plan_for_processors_counts_them_and_one_for_a_gpu_does_not() -> None:
    net = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 4, 1))
    example = ({"input": torch.zeros(2, 3, 32, 32)}, torch.zeros(2))

    def memory(kind: str) -> float:
        run = trace(net, lambda out, _: out.sum((1, 2, 3)), example, precision="fp32", recompute="none", kind=kind)
        return run.memory.at(8)

    map_bytes = 8 * 64 * 32 * 32 * 4
    assert map_bytes <= memory("cpu") - memory("cuda") <= 2 * map_bytes


@pytest.mark.slow
@pytest.mark.skipif(
    platform.machine() != "x86_64" or not os.access("/proc/self/clear_refs", os.W_OK), reason="needs x86 and Linux"
)
def test_they_are_as_large_as_memory_that_is_measured() -> None:
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, env=environment, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    for said, measured in json.loads(done.stdout):
        assert said == pytest.approx(measured, rel=0.15)
