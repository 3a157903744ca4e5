"""A module on its devices: alone, replicated (DDP) or sharded (FSDP2), with one face to the training loop."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tidemill.train.blocks import repeated_blocks
from tidemill.train.cursor import Cursor, generator
from tidemill.train.types import Loss, Placement, Samples

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def local(tensor: Tensor | None) -> Tensor:
    """Give this process's part of a tensor, sharing its memory: of a sharded one the shard, else the tensor itself."""
    if tensor is None:
        raise ValueError("There is no tensor.")  # callers have looked; a narrowing for the type checker
    if not isinstance(tensor, _sharded_type()):
        return tensor
    with torch.no_grad():
        return cast(Tensor, cast(Any, tensor).to_local())


def whole(tensor: Tensor) -> Tensor:
    """Give the whole of a tensor that may be sharded; all processes must ask together."""
    tensor = tensor.detach()
    return cast(Tensor, cast(Any, tensor).full_tensor()) if isinstance(tensor, _sharded_type()) else tensor


def _sharded_type() -> type:
    if not dist.is_available() or not dist.is_initialized():  # then there are none, and the import is spared
        return type(None)
    from torch.distributed.tensor import DTensor

    return DTensor


class Group:
    """The processes that train together; of one process everything here is free.

    Parameters
    ----------
    device : torch.device
        Of this process.
    placement : Placement
        How many there are and what each is for. With more than one (or with ``offload``) the default process group
        of `torch.distributed` must have been made.
    """

    def __init__(self, device: torch.device, placement: Placement) -> None:
        self.device = device
        self.placement = placement
        self.together = placement.world > 1 or placement.offload
        self.rank = dist.get_rank() if self.together else 0
        self.world = placement.world
        self._mesh: DeviceMesh | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    @property
    def is_sharded(self) -> bool:
        """Whether weights are spread over processes."""
        return self.placement.shards > 1 or self.placement.offload

    @property
    def mesh(self) -> DeviceMesh:
        """The processes as a grid of shards, or of replicas by shards."""
        if self._mesh is None:
            from torch.distributed.device_mesh import init_device_mesh

            kind, p = self.device.type, self.placement
            if p.replicas == 1:
                self._mesh = init_device_mesh(kind, (p.shards,), mesh_dim_names=("shard",))
            else:
                self._mesh = init_device_mesh(kind, (p.replicas, p.shards), mesh_dim_names=("replica", "shard"))
        return self._mesh

    def sum(self, values: Sequence[float]) -> list[float]:
        """Add numbers over all processes."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        return [float(v) for v in tensor]

    def sum_over_shards(self, value: float) -> float:
        """Add a number over the processes that share one copy of the model."""
        if self.placement.shards == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, group=self.mesh.get_group("shard"))
        return float(tensor)

    def gather(self, value: Any) -> list[Any]:
        """Collect a picklable value of every process at each, by rank."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def share(self, value: Any) -> Any:
        """Give every process the first one's picklable value."""
        if self.world == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]

    def barrier(self) -> None:
        """Wait for all."""
        if self.world > 1:
            dist.barrier()


class Placed:
    """A module where its placement wants it.

    Parameters
    ----------
    module : nn.Module
        Changed in place: moved to the device or sharded. Names of parameters stay.
    group : Group
        With whom.
    unused : bool
        Whether some parameters may get no gradient, so that replicas must not wait for them.
    """

    def __init__(self, module: nn.Module, group: Group, *, unused: bool = False) -> None:
        self.inner = module
        self.group = group
        self._outer: nn.Module = module
        if group.is_sharded:
            self._shard()
        else:
            module.to(group.device)
            if group.world > 1:
                self._replicate(unused)

    def __call__(self, **inputs: Tensor) -> Any:
        """Run forward."""
        return self._outer(**inputs)

    def release(self) -> None:
        """Let go of what exchanges gradients, while the group is there; no training step may follow.

        A replica that outlives its group is the last to hold it, and ends it with Python locked: the group then waits
        for its thread, which for its last tensors waits for Python (seen with gloo in PyTorch 2.13).
        """
        if self._outer is not self.inner:
            self._outer = self.inner
            gc.collect()  # DistributedDataParallel may hold itself

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        return {name: p for name, p in self.inner.named_parameters() if p.requires_grad}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All weights and lasting buffers by name: the live ones."""
        lasting = self.inner.state_dict(keep_vars=True)
        return {name: t.detach() for name, t in lasting.items() if isinstance(t, Tensor)}

    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        """Give the context of one piece of a batch: replicas exchange gradients with the last piece only."""
        from torch.nn.parallel import DistributedDataParallel

        if last or not isinstance(self._outer, DistributedDataParallel):
            return nullcontext()
        return cast("AbstractContextManager[None]", self._outer.no_sync())

    def settle(self) -> None:
        """After passes without a backward: let go of the whole weights, so that the next pass gathers them anew."""
        if self.group.is_sharded:
            cast(Any, self.inner).reshard()

    @torch.no_grad()
    def agree_on_buffers(self) -> None:
        """Average what each process has counted by itself, such as the statistics of batch normalisation."""
        if self.group.world == 1:
            return
        for buffer in self.inner.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer.div_(self.group.world)

    def _replicate(self, unused: bool) -> None:
        from torch.nn.parallel import DistributedDataParallel

        ids = [self.group.device.index] if self.group.device.type == "cuda" else None
        # Buffers are averaged where they are used, not sent around in each pass; the switch has changed its name.
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        switch = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        quiet: dict[str, Any] = {switch: False}
        self._outer = DistributedDataParallel(
            self.inner,
            device_ids=ids,
            **quiet,
            find_unused_parameters=unused,
            gradient_as_bucket_view=True,
        )

    def _shard(self) -> None:
        from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

        policy = CPUOffloadPolicy() if self.group.placement.offload else OffloadPolicy()
        for block in repeated_blocks(self.inner).values():
            fully_shard(block, mesh=self.group.mesh, offload_policy=policy)
        fully_shard(self.inner, mesh=self.group.mesh, offload_policy=policy)


@contextmanager
def unchanged_buffers(module: nn.Module) -> Iterator[None]:
    """Undo what trial passes leave in buffers, and drop their gradients."""
    held = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in held:
                buffer.copy_(value)
        for parameter in module.parameters():
            parameter.grad = None


def place(module: nn.Module, loss: Loss, samples: Samples, group: Group, cursor: Cursor) -> Placed:
    """Bring a module to its devices; replicas must know beforehand whether all parameters get gradients.

    Parameters
    ----------
    module, loss, samples
        What is trained: two samples tell which parameters are used, where there are replicas.
    group : Group
        The processes.
    cursor : Cursor
        Which samples come first.
    """
    if group.world == 1 or group.is_sharded:
        return Placed(module, group)
    module.to(group.device).train()
    rows = cursor.indices(0)
    with unchanged_buffers(module):
        inputs, targets = samples.batch(rows[:2], train=False, rng=generator(0, 0, 0))
        inputs = {n: t.to(group.device) for n, t in inputs.items()}
        loss(module(**inputs), targets.to(group.device)).sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        unused = any(p.requires_grad and p.grad is None for p in module.parameters())
    return Placed(module, group, unused=unused)
