"""A platform under test: ``tidemill up`` as a person starts it, small bundles for it, and clients that check it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from bench.serving.load import Call, read_answer

NAME = "m"
"""The endpoint of these measurements."""
_ZYGOTE = "tidemill.deploy.engine.zygote"
_HUNG_S = 30.0


def bundle(out: Path, *, rows: int = 200, seed: int = 0) -> Path:
    """Write a small bundle: another seed gives other answers, another number of rows the same by another revision."""
    from tidemill.bundle.evidence import Evidence
    from tidemill.bundle.spec import BundleInfo
    from tidemill.bundle.write import write_bundle
    from tidemill.testing.parts import small_columns, small_recipe

    recipe = small_recipe("binary", seed=seed)
    test = small_columns(rows // 2, seed=1)
    answers = recipe.predict(test)
    assert answers.codes is not None
    write_bundle(
        out, recipe, columns_train=small_columns(rows), columns_test=test, y_test=answers.codes,
        info=BundleInfo(name="small"), evidence=[Evidence("out_of_fold", answers.codes[::-1].copy(), answers.scores)],
    )  # fmt: skip
    return out


def revision_of(folder: Path) -> str:
    """Id of the revision that a bundle becomes."""
    from tidemill.deploy.bundles import ID_DIGITS, bundle_hash

    return bundle_hash(folder)[:ID_DIGITS]


@dataclass(frozen=True)
class Questions:
    """Rows to ask for, and what each revision must answer.

    Parameters
    ----------
    records : list of dict
        Rows by column.
    wanted : mapping of str to list
        By revision, label and probabilities of each row.
    """

    records: list[dict[str, Any]]
    wanted: Mapping[str, list[tuple[Any, list[float]]]]

    @classmethod
    def of(cls, folders: Sequence[Path], count: int = 64) -> Questions:
        """Draw rows, and let each bundle answer them itself, without a server."""
        from tidemill.bundle.runtime import Bundle

        rng = np.random.default_rng(5)
        records = [
            {
                "size": round(float(rng.normal()), 3),
                "colour": str(rng.choice(["a", "b", "c"])),
                "weight": round(float(rng.normal()), 3),
            }
            for _ in range(count)
        ]
        columns = {name: [r[name] for r in records] for name in records[0]}
        wanted: dict[str, list[tuple[Any, list[float]]]] = {}
        for folder in folders:
            opened = Bundle.open(folder)
            labels = [v.item() if hasattr(v, "item") else v for v in opened.predict(columns)]
            shares = [[float(p) for p in row] for row in opened.predict_proba(columns)]
            wanted[revision_of(folder)] = list(zip(labels, shares, strict=True))
        return cls(records, wanted)

    def calls(self, path: str = f"/v1/predict/{NAME}", **headers: str) -> list[Call]:
        """One request for each row."""
        return [Call(path, json.dumps(record).encode(), headers) for record in self.records]

    def right(self, index: int, body: bytes) -> str | None:
        """The revision that answered; None where the answer is not what that revision says."""
        told = json.loads(body)
        label, shares = self.wanted[told["revision"]][index]
        (row,) = told["predictions"]
        near = np.allclose(list(row["probabilities"].values()), shares, rtol=1e-4, atol=1e-5)
        return told["revision"] if near and row["label"] == label else None


@dataclass
class Tally:
    """What became of requests.

    Parameters
    ----------
    ok, wrong : int
        Answers that are right, and that are not.
    refused : Counter
        Typed refusals (429, 503, 504, 507) by code.
    lost : Counter
        Requests that were sent and got neither, by what happened.
    unreachable : int
        Connections that were refused before anything was sent: nothing was taken in.
    longest_ms : float
        Of the right answers.
    """

    ok: int = 0
    wrong: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    unreachable: int = 0
    longest_ms: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "ok": self.ok,
            "lost": sum(self.lost.values()),
            "wrong": self.wrong,
            "refused": sum(self.refused.values()),
            "unreachable": self.unreachable,
            "longest_ms": round(self.longest_ms, 1),
            **({"why": {**self.lost, **self.refused}} if self.lost or self.refused else {}),
        }


class Clients:
    """Closed loops in a thread of their own; a request belongs to the tally at whose time it was sent.

    Parameters
    ----------
    port : int
        Where to ask.
    questions : Questions
        What to ask, and what is right.
    count : int
        How many.
    """

    def __init__(self, port: int, questions: Questions, count: int = 8) -> None:
        self._port = port
        self._questions = questions
        self._raws = [c.raw() for c in questions.calls()]
        self._count = count
        self._stop = False
        self.tally = Tally()
        self.last: dict[str, float] = {}
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Clients:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join(2 * _HUNG_S)

    def turn(self) -> Tally:
        """Begin a new tally; what is under way still counts in the old one, which is given."""
        before, self.tally = self.tally, Tally()
        return before

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(n) for n in range(self._count)))

    async def _client(self, number: int) -> None:
        rng = random.Random(number)
        stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._stop:
            tally, index, begin = self.tally, rng.randrange(len(self._raws)), time.perf_counter()
            if stream is None:
                try:
                    stream = await asyncio.open_connection("127.0.0.1", self._port)
                except OSError:
                    tally.unreachable += 1
                    await asyncio.sleep(0.02)
                    continue
            reader, writer = stream
            try:
                writer.write(self._raws[index])
                status, headers, body = await asyncio.wait_for(read_answer(reader), _HUNG_S)
            except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
                tally.lost[type(error).__name__] += 1
                writer.close()
                stream = None
                continue
            self._count_answer(tally, index, begin, status, body)
            if headers.get("connection") == "close":
                writer.close()
                stream = None
        if stream is not None:
            stream[1].close()
            with contextlib.suppress(OSError):
                await stream[1].wait_closed()

    def _count_answer(self, tally: Tally, index: int, begin: float, status: int, body: bytes) -> None:
        if status == 200:
            revision = self._questions.right(index, body)
            if revision is None:
                tally.wrong += 1
                return
            tally.ok += 1
            tally.longest_ms = max(tally.longest_ms, (time.perf_counter() - begin) * 1e3)
            self.last[revision] = max(self.last.get(revision, 0.0), begin)
        elif status in (429, 503, 504, 507):
            tally.refused[f"{status} {json.loads(body).get('code')}"] += 1
        else:
            tally.lost[f"status {status}"] += 1


class Platform:
    """A running ``tidemill up``, told apart by program.

    Parameters
    ----------
    place : Path
        The workspace.
    words : str
        Further options.
    """

    def __init__(self, place: Path, *words: str) -> None:
        self.place = place
        program = Path(sys.executable).parent / "tidemill"
        # No job worker: what is measured is what serves.
        command = [
            str(program), "up", "--port", "0", "--api-port", "0", "--workers", "0", "--json", *words,
            "--workspace", str(place),
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self.pids: dict[str, int] = {}
        self.urls: dict[str, str] = {}
        self._ready: Counter[str] = Counter()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        fronts = int(words[words.index("--fronts") + 1]) if "--fronts" in words else 1
        self.fronts = [f"front-{n}" for n in range(1, fronts + 1)]
        self._await(lambda: all(self._ready[p] for p in (*self.fronts, "api", "control")), "ready")

    def __enter__(self) -> Platform:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._hear(json.loads(line))
        self._ended.set()

    def _hear(self, event: dict[str, Any]) -> None:
        program = event.get("program", "")
        if event.get("event") == "started":
            self.pids[program] = event["pid"]
        elif event.get("event") == "ready":
            self.urls[program] = event.get("url", "")
            self._ready[program] += 1

    def _await(self, law: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
        end = time.monotonic() + seconds
        while not law():
            if time.monotonic() > end or self._ended.is_set():
                self.end()
                raise RuntimeError(f"the platform was not {what} within {seconds:.0f} s")
            time.sleep(0.02)

    @property
    def port(self) -> int:
        """Of the endpoints."""
        return int(self.urls[self.fronts[0]].rsplit(":", 1)[1])

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the API; raises on anything but success."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.urls["api"] + path, data, {"content-type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.code} {error.read().decode()[:300]}") from error

    def endpoint(self) -> dict[str, Any]:
        """The endpoint as the API shows it."""
        told: dict[str, Any] = self.ask("GET", f"/api/v1/endpoints/{NAME}")
        return told

    def deploy(self, folder: Path, *, hold: bool = False, **settings: Any) -> str:
        """Deploy a bundle and wait until it is ready, and has all of the traffic; gives the revision."""
        import tidemill

        revision = str(tidemill.endpoint(NAME, self.place).deploy(folder, hold=hold, **settings)["revision"])
        if hold:
            self._await(lambda: self._state(revision) == "ready", f"ready with {revision}")
        else:
            self.wait_traffic({revision: 1.0})
        return revision

    def _state(self, revision: str) -> str:
        return next(str(r["state"]) for r in self.endpoint()["revisions"] if r["id"] == revision)

    def wait_traffic(self, wanted: Mapping[str, float]) -> None:
        """Wait until the traffic is as wanted, in the records."""
        self._await(lambda: self.endpoint()["traffic"] == wanted, f"at {dict(wanted)}")

    def wait_served(self, revision: str, seconds: float = 60.0) -> None:
        """Wait until the fronts answer with a revision."""
        url, body = self.urls[self.fronts[0]], b'{"size":1,"colour":"a","weight":1}'

        def served() -> bool:
            request = urllib.request.Request(f"{url}/v1/predict/{NAME}", body, method="POST")
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return json.loads(answer.read())["revision"] == revision
            except OSError:
                return False

        self._await(served, f"serving {revision}", seconds)

    def strike(self, program: str, number: signal.Signals) -> None:
        """Send a signal to a program, and wait until its successor is ready."""
        before = self._ready[program]
        os.kill(self.pids[program], number)
        self._await(lambda: self._ready[program] > before, f"rid of its {program}")

    def workers(self) -> list[int]:
        """Process ids of the model workers of all fronts: children of a zygote, which is forked like them."""
        found: list[int] = []
        for name in self.fronts:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(self.pids[name]).children():
                    if _ZYGOTE in child.cmdline():
                        found += [w.pid for w in child.children()]
        return found

    def counter(self, metric: str) -> int:
        """Sum of a counter over all that it is counted by."""
        with urllib.request.urlopen(self.urls[self.fronts[0]] + "/metrics", timeout=60) as answer:
            text = answer.read().decode()
        return sum(int(float(n)) for n in re.findall(rf"^{metric}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))

    def family(self) -> list[psutil.Process]:
        """All of its processes."""
        found: list[psutil.Process] = []
        for pid in {self.process.pid, *self.pids.values()}:
            with contextlib.suppress(psutil.NoSuchProcess):
                one = psutil.Process(pid)
                found += [one, *one.children(recursive=True)]
        unique = {p.pid: p for p in found}
        return list(unique.values())

    def kill(self) -> None:
        """End ``tidemill up`` itself with kill -9; its programs live on, and are forgotten by this object."""
        self.process.kill()
        self.process.wait()
        self._thread.join(5)

    def end(self) -> int:
        """End all of it in order; gives the exit code."""
        family = self.family()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(90)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._thread.join(5)
        _, alive = psutil.wait_procs(family, timeout=5)
        for one in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        return int(self.process.returncode)
