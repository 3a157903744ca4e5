"""Load: closed loops of raw sockets that check every answer, and ``wrk`` where only the server's cost is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Call:
    """One kind of request.

    Parameters
    ----------
    path : str
        Target.
    body : bytes
        Its body.
    headers : mapping
        Beside host and length.
    """

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def raw(self) -> bytes:
        """The whole request."""
        lines = [f"POST {self.path} HTTP/1.1", "Host: bench", f"Content-Length: {len(self.body)}"]
        lines += [f"{k}: {v}" for k, v in ({"Content-Type": "application/json"} | dict(self.headers)).items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + self.body


@dataclass
class Seen:
    """What came of a run; times in milliseconds."""

    ok_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    wrong: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def fail(self, why: str) -> None:
        """Count what is neither an answer nor a typed refusal."""
        self.errors[why] = self.errors.get(why, 0) + 1

    def summary(self) -> dict[str, object]:
        """Counts and quantiles."""

        def at(values: list[float], q: float) -> float | None:
            return round(float(np.percentile(values, q)), 3) if values else None

        return {
            "ok": len(self.ok_ms),
            "per_s": round(len(self.ok_ms) / self.seconds, 1) if self.seconds else None,
            "p50_ms": at(self.ok_ms, 50),
            "p99_ms": at(self.ok_ms, 99),
            "max_ms": at(self.ok_ms, 100),
            "refused": len(self.refused_ms),
            "refused_p50_ms": at(self.refused_ms, 50),
            "refused_p99_ms": at(self.refused_ms, 99),
            "wrong": self.wrong,
            "errors": self.errors,
        }


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    status = int(lines[0].split()[1])
    headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:] if ": " in line)}
    return status, headers, await reader.readexactly(int(headers.get("content-length", "0")))


async def closed_loop(
    port: int,
    calls: list[Call],
    clients: int,
    seconds: float,
    check: Callable[[int, bytes], bool],
    *,
    retry_after: bool = False,
    timeout_s: float = 10.0,
) -> Seen:
    """``clients`` send one request after the other; ``check`` gets each answer of status 200, with the call's index."""
    seen = Seen()
    raws = [c.raw() for c in calls]
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        rng = np.random.default_rng(number)
        reader = writer = None
        while time.perf_counter() < end:
            index = int(rng.integers(len(raws)))
            begin = time.perf_counter()
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                assert reader is not None
                writer.write(raws[index])
                status, headers, body = await asyncio.wait_for(read_answer(reader), timeout_s)
            except (OSError, asyncio.IncompleteReadError) as error:
                seen.fail(type(error).__name__)
                if writer is not None:
                    writer.close()
                writer = None
                await asyncio.sleep(0.01)
                continue
            except asyncio.TimeoutError:
                seen.fail("hung")
                if writer is not None:
                    writer.close()
                writer = None
                continue
            took = (time.perf_counter() - begin) * 1e3
            if status == 200:
                seen.ok_ms.append(took)
                seen.wrong += not check(index, body)
            elif status in (429, 503, 504):
                seen.refused_ms.append(took)
                if retry_after:
                    await asyncio.sleep(float(json.loads(body).get("retry_after_s", 0.1)))
            else:
                seen.fail(f"status {status}")
            if headers.get("connection") == "close":
                writer.close()
                writer = None
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    begin = time.perf_counter()
    await asyncio.gather(*(client(n) for n in range(clients)))
    seen.seconds = time.perf_counter() - begin
    return seen


async def once(port: int, call: Call) -> int:
    """Ask once on a connection of its own; gives the status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(call.raw())
    status, _, _ = await asyncio.wait_for(read_answer(reader), 60)
    writer.close()
    return status


async def open_loop(port: int, call: Call, per_s: float, seconds: float, connections: int) -> Seen:
    """Requests at a fixed rate, whatever comes back; answers are matched to them in order on each connection."""
    seen = Seen()
    raw = call.raw()
    streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(connections)]
    free: asyncio.Queue[int] = asyncio.Queue()
    for k in range(connections):
        free.put_nowait(k)
    tasks: set[asyncio.Task[None]] = set()

    async def one(k: int, due: float) -> None:
        reader, writer = streams[k]
        try:
            writer.write(raw)
            status, _, body = await asyncio.wait_for(read_answer(reader), 30)
            took = (time.perf_counter() - due) * 1e3
            if status == 200:
                seen.ok_ms.append(took)
            elif status in (429, 503, 504) and json.loads(body).get("code"):
                seen.refused_ms.append(took)
            else:
                seen.fail(f"status {status}")
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
            seen.fail(type(error).__name__)
            streams[k] = await asyncio.open_connection("127.0.0.1", port)
        free.put_nowait(k)

    begin = time.perf_counter()
    sent = 0
    while (now := time.perf_counter()) < begin + seconds:
        due = begin + sent / per_s
        if due > now:
            await asyncio.sleep(min(due - now, 0.01))
            continue
        if free.empty():
            seen.fail("no connection")
            sent += 1
            continue
        task = asyncio.get_running_loop().create_task(one(free.get_nowait(), time.perf_counter()))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        sent += 1
    await asyncio.gather(*tasks)
    seen.seconds = time.perf_counter() - begin
    for _, writer in streams:
        writer.close()
    return seen


def wrk(port: int, call: Call, clients: int, seconds: float) -> dict[str, float]:
    """Run ``wrk`` on one thread; answers other than 2xx are counted as errors."""
    program = shutil.which("wrk")
    if program is None:
        raise RuntimeError("wrk is absent; install it, or use closed_loop")
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder) / "body"
        body.write_bytes(call.body)
        headers = {"Content-Type": "application/json"} | dict(call.headers)
        lines = ['wrk.method="POST"', *(f'wrk.headers["{k}"]="{v}"' for k, v in headers.items())]
        lines.append(f'wrk.body=io.open("{body}","rb"):read("*a")')
        script = Path(folder) / "call.lua"
        script.write_text("\n".join(lines) + "\n")
        command = [
            program,
            "-t1",
            f"-c{clients}",
            f"-d{max(1, round(seconds))}s",
            "--latency",
            "-s",
            str(script),
            f"http://127.0.0.1:{port}{call.path}",
        ]
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}

    def quantile(q: str) -> float:
        found = re.search(rf"\s{q}%\s+([0-9.]+)(us|ms|s|m)\b", text)
        return float(found[1]) * scale[found[2]] if found else float("nan")

    done = re.search(r"(\d+) requests in", text)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return {
        "requests": float(done[1]) if done else 0.0,
        "bad": float(bad[1]) if bad else 0.0,
        "p50_ms": quantile("50"),
        "p99_ms": quantile("99"),
    }
