"""Memory over very many requests, and over very many times load and unload: it must be flat.

Run it from the repository: ``.venv/bin/python -m bench.serving.soak --requests 1000000 --cycles 1000 --out soak.json``.

Every answer is held against what the bundle itself answers. Memory is the PSS (shared pages in equal parts) of the
whole process tree, sampled while the load runs. Judged is its anonymous part: what libraries take depends on who else
on the machine uses the same files. What is called flat, stated before anything is measured:

    The first fifth of the samples is warm-up. Through the rest goes a Theil-Sen line (the median of all slopes between
    two samples, which single outliers do not move). *Flat* means that this line rises, over all that was measured,
    by at most 2 MiB or 2 % of the median, whichever is more.

Over a million requests that is less than three bytes for each; over a thousand cycles two kilobytes for each.
``serve`` is ``tidemill serve`` with one model; ``up`` is the platform, with everything that it counts and keeps.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from bench.serving import load
from bench.serving.load import Call
from bench.serving.platform import NAME, Platform, Questions, bundle
from bench.serving.systems import tidemill

ROWS = 512
SAMPLES = 40
MOST_MIB = 2.0
MOST_SHARE = 0.02
_WARM_UP = 0.2
_PIPELINED = 16
_CONNECTIONS = 8


@dataclass(frozen=True)
class Verdict:
    """What a series of samples says.

    Parameters
    ----------
    growth_mib : float
        Rise of the line over all that was measured.
    allowed_mib : float
        What may be called flat.
    level_mib : float
        Median after the warm-up.
    """

    growth_mib: float
    allowed_mib: float
    level_mib: float

    @property
    def flat(self) -> bool:
        """The word."""
        return self.growth_mib <= self.allowed_mib


def judge(points: Sequence[tuple[float, float]]) -> Verdict:
    """Say whether memory is flat, by the rule above.

    Parameters
    ----------
    points : sequence of (float, float)
        Work done, and MiB then; at least ten.

    Examples
    --------
    >>> judge([(k, 50.0 + 0.001 * k) for k in range(100)]).flat
    True
    >>> judge([(k, 50.0 + 0.1 * k) for k in range(100)]).flat
    False
    """
    if len(points) < 10:
        raise ValueError(f"ten samples are needed, but there are {len(points)}")
    kept = np.array(points[int(len(points) * _WARM_UP) :])
    first, second = np.triu_indices(len(kept), 1)
    slopes = (kept[second, 1] - kept[first, 1]) / (kept[second, 0] - kept[first, 0])
    span = float(points[-1][0] - points[0][0])
    level = float(np.median(kept[:, 1]))
    return Verdict(float(np.median(slopes)) * span, max(MOST_MIB, MOST_SHARE * level), level)


def pss_mib(family: Sequence[psutil.Process], field: str = "Pss_Anon") -> float:
    """Memory of processes, shared pages in equal parts; ``"Pss_Anon"`` leaves out pages of files, ``"Pss"`` does not.

    Raises
    ------
    RuntimeError
        Where the system does not tell it.
    """
    total, told = 0, False
    begin = f"{field}:"
    for one in family:
        try:
            text = Path(f"/proc/{one.pid}/smaps_rollup").read_text(encoding="ascii")
        except OSError:  # it has ended since
            continue
        found = [int(line.split()[1]) for line in text.splitlines() if line.startswith(begin)]
        total, told = total + sum(found), told or bool(found)
    if not told:
        raise RuntimeError("this system does not tell the PSS of a process")
    return total / 1024


@dataclass(frozen=True)
class Subject:
    """A server under test: where it listens, its processes, requests, and what is right as the answer to each."""

    port: int
    family: Callable[[], Sequence[psutil.Process]]
    calls: Sequence[Call]
    right: Callable[[int, bytes], bool]


@contextmanager
def serve(folder: Path) -> Iterator[Subject]:
    """``tidemill serve`` with one small bundle."""
    made = bundle(folder / "one")
    questions = Questions.of([made], ROWS)
    with tidemill(made) as server:
        yield Subject(server.port, server.family, questions.calls(), _right(questions))


@contextmanager
def up(folder: Path) -> Iterator[Subject]:
    """``tidemill up`` with one endpoint: with the watch, the API and the controller."""
    made = bundle(folder / "one")
    questions = Questions.of([made], ROWS)
    with Platform(folder / "ws") as platform:
        revision = platform.deploy(made, min_replicas=1)
        platform.wait_served(revision)
        yield Subject(platform.port, platform.family, questions.calls(), _right(questions))


def _right(questions: Questions) -> Callable[[int, bytes], bool]:
    return lambda index, body: questions.right(index, body) is not None


async def ask_many(subject: Subject, count: int) -> int:
    """Send so many requests over a few pipelined connections; gives how many answers were not right."""
    raws = [call.raw() for call in subject.calls]
    shares = [count // _CONNECTIONS + (k < count % _CONNECTIONS) for k in range(_CONNECTIONS)]
    known: dict[tuple[int, bytes], bool] = {}

    async def one(number: int, left: int) -> int:
        wrong, at = 0, number * 61
        reader, writer = await asyncio.open_connection("127.0.0.1", subject.port)
        while left:
            batch = min(left, _PIPELINED)
            indices = [(at + k) % len(raws) for k in range(batch)]
            writer.write(b"".join(raws[i] for i in indices))
            for index in indices:
                status, _, body = await load.read_answer(reader)
                # The number of the request is in it; what else it says is looked at once.
                key = (index, _without_id(body))
                if key not in known:
                    known[key] = status == 200 and subject.right(index, body)
                wrong += not known[key]
            at += batch
            left -= batch
        writer.close()
        return wrong

    return sum(await asyncio.gather(*(one(k, n) for k, n in enumerate(shares))))


def _without_id(body: bytes) -> bytes:
    head, mark, rest = body.partition(b'"request_id":"')
    return head + rest.partition(b'"')[2] if mark else body


def requests(subject: Subject, count: int) -> dict[str, Any]:
    """Memory over so many requests."""
    points: list[tuple[float, float]] = [(0.0, pss_mib(subject.family()))]
    begin, wrong, done = time.perf_counter(), 0, 0
    for step in np.diff(np.linspace(0, count, SAMPLES + 1).astype(int)).tolist():
        wrong += asyncio.run(ask_many(subject, step))
        done += step
        points.append((float(done), pss_mib(subject.family())))
    return _report(subject, "requests", points, wrong, time.perf_counter() - begin)


def cycles(subject: Subject, count: int) -> dict[str, Any]:
    """Memory over so many times unload, load, and one request."""
    off = Call(f"/v2/repository/models/{NAME}/unload", b"{}")
    on = Call(f"/v2/repository/models/{NAME}/load", b"{}")

    async def turn(times: int) -> int:
        wrong = 0
        reader, writer = await asyncio.open_connection("127.0.0.1", subject.port)
        for _ in range(times):
            for call in (off, on, subject.calls[0]):
                writer.write(call.raw())
                status, _, body = await load.read_answer(reader)
                wrong += status != 200 or (call is subject.calls[0] and not subject.right(0, body))
        writer.close()
        return wrong

    wrong, done = asyncio.run(turn(3)), 0
    points: list[tuple[float, float]] = [(0.0, pss_mib(subject.family()))]
    begin = time.perf_counter()
    for step in np.diff(np.linspace(0, count, min(SAMPLES, count // 2) + 1).astype(int)).tolist():
        wrong += asyncio.run(turn(step))
        done += step
        points.append((float(done), pss_mib(subject.family())))
    return _report(subject, "cycles", points, wrong, time.perf_counter() - begin)


def _report(
    subject: Subject, what: str, points: list[tuple[float, float]], wrong: int, seconds: float
) -> dict[str, Any]:
    verdict = judge(points)
    return {
        "what": what,
        "count": int(points[-1][0]),
        "wrong": wrong,
        "seconds": round(seconds, 1),
        "first_mib": round(points[0][1], 2),
        "last_mib": round(points[-1][1], 2),
        "level_mib": round(verdict.level_mib, 2),
        "growth_mib": round(verdict.growth_mib, 3),
        "allowed_mib": round(verdict.allowed_mib, 2),
        "flat": verdict.flat,
        "pss_mib": round(pss_mib(subject.family(), "Pss"), 1),
        "points": [(int(n), round(m, 2)) for n, m in points],
    }


def soak(folder: Path, on: str, request_count: int, cycle_count: int) -> list[dict[str, Any]]:
    """Run both on one system, ``"serve"`` or ``"up"``.

    Before the count begins, a tenth of the requests and three cycles fill what is filled once.
    """
    start = {"serve": serve, "up": up}[on]
    with start(folder) as subject:
        _wait(subject)
        asyncio.run(ask_many(subject, request_count // 10))
        rows = [requests(subject, request_count), cycles(subject, cycle_count)]
    return [{"on": on, **row} for row in rows]


def _wait(subject: Subject) -> None:
    """Wait until the batch curve was measured: the worker that does it would count as memory."""
    url = f"http://127.0.0.1:{subject.port}/v2/health/ready"
    before = -1
    for _ in range(40):
        with urllib.request.urlopen(url, timeout=30) as answer:
            answer.read()
        now = len(subject.family())
        if now == before:
            return
        before = now
        time.sleep(1.0)


def main() -> int:
    """Run both on all systems that were asked for; gives 1 where memory is not flat or an answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--on", default="serve,up")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for on in options.on.split(","):
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            rows += soak(Path(folder), on, options.requests, options.cycles)
        for row in rows[-2:]:
            shown = {k: v for k, v in row.items() if k != "points"}
            print(json.dumps(shown), flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps({"cores": os.cpu_count(), "rows": rows}, indent=1) + "\n")
    return 0 if all(r["flat"] and not r["wrong"] for r in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
