"""Two models on one server, one of the latency class and one of the bulk class, and what that costs the first."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench.serving import calls, load
from bench.serving.load import Call
from bench.serving.processes import ServerUnderTest, free_port


class Pair:
    """The measurement; `main` below is the server's program.

    Parameters
    ----------
    paths : dict of str to Path
        The models.
    seconds : float
        For each of the two measurements.
    """

    def __init__(self, paths: dict[str, Path], seconds: float) -> None:
        self._paths = paths
        self._seconds = seconds

    def measure(self) -> dict[str, Any]:
        """Latencies alone and beside the other, and their ratio."""
        port = free_port()
        command = [
            sys.executable,
            "-m",
            "bench.serving.pair",
            str(port),
            str(self._paths["lightgbm"]),
            str(self._paths["slow"]),
        ]
        root = Path(__file__).resolve().parents[2]
        with ServerUnderTest(command, port, "/v2/health/ready", {"PYTHONPATH": str(root)}, root) as server:
            alone = self._latency(port)
            stop = threading.Event()
            thread = threading.Thread(target=self._bulk, args=(port, stop))
            thread.start()
            beside = self._latency(port)
            stop.set()
            thread.join()
            bulk_ok = server.process is not None
        ratio = float(beside["p99_ms"]) / float(alone["p99_ms"])
        return {"alone": alone, "beside": beside, "ratio": round(ratio, 2), "alive": bulk_ok}

    def _latency(self, port: int) -> dict[str, object]:
        call = calls.json_call("/v2/models/fast/infer", calls.rows(1)[0])
        return asyncio.run(load.closed_loop(port, [call], 2, self._seconds, lambda *_: True)).summary()

    def _bulk(self, port: int, stop: threading.Event) -> None:
        rows = np.ones((64, 8), np.float32)
        tensor = {"name": "input", "shape": [64, 8], "datatype": "FP32", "data": rows.ravel().tolist()}
        call = Call("/v2/models/heavy/infer", json.dumps({"inputs": [tensor]}).encode(), {"X-Deadline-Ms": "600000"})

        async def go() -> None:
            async def one() -> None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                while not stop.is_set():
                    writer.write(call.raw())
                    await load.read_answer(reader)
                writer.close()

            await asyncio.gather(*(one() for _ in range(4)))

        asyncio.run(go())


def main(arguments: Sequence[str]) -> None:
    """Serve two models of different classes: port, latency model, bulk model."""
    from tidemill.deploy.engine.facts import read_facts
    from tidemill.deploy.engine.server import Server, run
    from tidemill.deploy.engine.sources import StaticSource
    from tidemill.deploy.types import Endpoint, Priority, Revision

    fast, heavy = read_facts(arguments[1]), read_facts(arguments[2])

    class Two(StaticSource):
        def endpoints(self) -> Sequence[Endpoint]:
            def of(name: str, facts: Any, priority: Priority) -> Endpoint:
                revision = Revision(facts.id, facts.id, 0.0, "ready")
                return Endpoint(
                    name,
                    (revision,),
                    {facts.id: 1.0},
                    priority=priority,
                    min_replicas=1,
                    max_replicas=1,
                    target_ms=20.0,
                    deadline_ms=600_000.0,
                )

            return [of("fast", fast, Priority.LATENCY), of("heavy", heavy, Priority.BULK)]

    run(Server(Two({"fast": fast, "heavy": heavy}), port=int(arguments[0])))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(sys.argv[1:])
