"""A program as torchrun starts it: trains the small net, and writes down what each process has seen."""

from __future__ import annotations

import gc
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch.distributed as dist
from tests.train.small import RECIPE, Cloud, accuracy, loss, net
from torch.nn.parallel import DistributedDataParallel

from tidemill.core.errors import TidemillError
from tidemill.train.runtime import train
from tidemill.train.types import Event, Placement


def counting_replicas() -> list[int]:
    """Count replicas that are there whenever a group ends."""
    end, counts = dist.destroy_process_group, list[int]()

    def counted(*args: Any) -> None:
        counts.append(sum(type(each) is DistributedDataParallel for each in gc.get_objects()))
        end(*args)

    dist.destroy_process_group = counted
    return counts


def main(folder: Path, how: dict[str, object]) -> None:
    module, told, replicas = net(), list[str](), counting_replicas()
    plan = how.get("plan")
    recipe = replace(RECIPE, keep_best=False, epochs=how.get("epochs", 4), checkpoint_s=how.get("checkpoint_s", 1e9))

    def tell(event: Event) -> None:
        told.append(event.kind)
        if event.kind == "point":
            (folder / "going").touch()

    seen: dict[str, object] = {"pid": os.getpid()}
    try:
        for _ in range(int(how.get("times", 1))):  # type: ignore[call-overload]
            trained = train(
                module, loss, Cloud(), recipe, validation=Cloud(21, seed=3), score=accuracy, on_event=tell,
                folder=folder / "run" if how.get("keeps", True) else None,
                plan=None if plan is None else Placement(**plan),  # type: ignore[arg-type]
            )  # fmt: skip
        weights = {name: tensor.tolist() for name, tensor in module.state_dict().items()}
        seen |= {"stop": trained.stop.value, "step": trained.step, "losses": trained.losses, "told": told}
        seen |= {"where": trained.placement.describe(), "weights": weights, "replicas": replicas}
    except TidemillError as error:
        seen["error"] = str(error)
    (folder / f"seen-{os.environ['RANK']}.json").write_text(json.dumps(seen), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
