"""What a forward and backward pass takes, found by running it on tensors without data.

Every operation is seen as it would run; what it makes lives as long as it would, so the most that lives at a time is
the memory of the pass. Nothing is computed: a pass of a model of any size takes a second or two.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from tidemill.core.errors import DataError
from tidemill.train.blocks import recomputing
from tidemill.train.evaluate import wide
from tidemill.train.planner.copies import held_by
from tidemill.train.types import Loss

Example = tuple[dict[str, Tensor], Tensor]
"""Inputs and targets of some samples; only shapes and types are looked at."""

_SIZES = (4, 8)
_CHECK = 2


@dataclass(frozen=True)
class Line:
    """A quantity by the number of samples: ``base + slope * samples``."""

    base: float
    slope: float

    def at(self, samples: int) -> float:
        """Give the value for so many samples, never negative."""
        return max(0.0, self.base + self.slope * samples)

    @classmethod
    def through(cls, n1: int, v1: float, n2: int, v2: float) -> Line:
        """Give the line through two points.

        Examples
        --------
        >>> Line.through(2, 30.0, 4, 50.0).at(10)
        110.0
        """
        slope = (v2 - v1) / (n2 - n1)
        return cls(v1 - slope * n1, slope)


@dataclass(frozen=True)
class Most:
    """The largest of some quantities by the number of samples: of what lives at each moment of a pass.

    With few samples the most lives where weights have all their gradients, with many at the end of the way forward.
    """

    lines: tuple[Line, ...]

    def at(self, samples: int) -> float:
        """Give the value for so many samples."""
        return max(line.at(samples) for line in self.lines)

    @classmethod
    def through(cls, n1: int, v1: Sequence[float], n2: int, v2: Sequence[float]) -> Most:
        """Give the lines through the values of two runs, moment by moment; of unlike runs that through their largest.

        Examples
        --------
        >>> found = Most.through(2, [30.0, 40.0, 10.0], 4, [50.0, 44.0, 12.0])
        >>> found.at(1), found.at(10), len(found.lines)
        (38.0, 110.0, 2)
        """
        if len(v1) != len(v2):
            return cls((Line.through(n1, max(v1), n2, max(v2)),))
        lines = {Line.through(n1, a, n2, b) for a, b in zip(v1, v2, strict=True)}
        highest: list[Line] = []
        for line in sorted(lines, key=lambda one: (-one.slope, -one.base)):
            if not highest or line.base > highest[-1].base:  # of a lesser slope, and lower: never the largest
                highest.append(line)
        return cls(tuple(highest))


@dataclass(frozen=True)
class Pass:
    """A forward and backward pass under one policy of recomputation.

    Parameters
    ----------
    recompute : str
        The policy.
    memory : Most
        Most bytes alive at a time, besides weights and their gradients.
    whole : Most
        Most bytes alive at a time, besides weights, in a pass before which they have no gradients: those come while
        what the pass has kept goes.
    flops : Line
        Operations of matrix products and convolutions.
    traffic : Line
        Bytes read and written.
    operations : int
        How many operations are started.
    misfit : float
        How far the memory line is off at a third size, as a share; looked at without recomputation alone.
    with_loss : bool
        False where the loss could not be run without data, and the outputs' squares stood for it.
    """

    recompute: str
    memory: Most
    whole: Most
    flops: Line
    traffic: Line
    operations: int
    misfit: float
    with_loss: bool


def trace(
    module: nn.Module, loss: Loss, example: Example, *, precision: str, recompute: str, kind: str = "cpu"
) -> Pass:
    """Trace a module's pass at some sizes and draw the lines.

    Parameters
    ----------
    module : nn.Module
        On any device, the meta device included; left as it is.
    loss : Loss
        Of the outputs.
    example : tuple
        Inputs and targets.
    precision, recompute : str
        As it would be trained.
    kind : str
        Of the device, "cpu" or "cuda": on processors, convolutions make copies of their own.

    Raises
    ------
    DataError
        Where the module can't be run without data, because what it does depends on values.
    """
    ghost = _Ghost(module, precision, recompute, kind)
    sizes = (*_SIZES, _CHECK) if recompute == "none" else _SIZES
    try:
        runs = {size: ghost.run(loss, example, size) for size in sizes}
        with_loss = True
    except Exception:  # noqa: BLE001  a module may raise anything here; the second try tells what it is
        runs = _without_loss(ghost, example, sizes)
        with_loss = False
    small, large = (runs[size] for size in _SIZES)

    def line(of: Callable[[_Live], float]) -> Line:
        return Line.through(_SIZES[0], of(small), _SIZES[1], of(large))

    memory = Most.through(_SIZES[0], small.course, _SIZES[1], large.course)
    check = runs.get(_CHECK)
    return Pass(
        recompute=recompute,
        memory=memory,
        whole=Most.through(_SIZES[0], small.whole, _SIZES[1], large.whole),
        flops=line(lambda run: run.flops),
        traffic=line(lambda run: run.traffic),
        operations=large.operations,
        misfit=0.0 if check is None else abs(memory.at(_CHECK) / max(1, *check.course) - 1),
        with_loss=with_loss,
    )


def _without_loss(ghost: _Ghost, example: Example, sizes: tuple[int, ...]) -> dict[int, _Live]:
    try:
        return {size: ghost.run(_square, example, size) for size in sizes}
    except Exception as error:
        line = str(error).strip().splitlines()
        raise DataError(
            f"The module can't be run without data: {line[0][:200] if line else type(error).__name__}.",
            hint="What it does depends on values; measure it instead: train with micro_batch=None finds what fits.",
        ) from error


def _square(outputs: Any, targets: Tensor) -> Tensor:
    tensors = [t for t in tree_leaves(outputs) if isinstance(t, Tensor) and t.requires_grad]
    return torch.stack([t.float().square().flatten(1).mean(1) for t in tensors]).sum(0)


class _Ghost:
    """A copy of a module whose tensors are shapes alone, to be run."""

    def __init__(self, module: nn.Module, precision: str, recompute: str, kind: str) -> None:
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        with self._mode:
            self._module = _ghost(module).train()
        self._dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        self._recompute = recompute
        self._copies = kind == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's

    def run(self, loss: Loss, example: Example, size: int) -> _Live:
        """Run forward and backward with so many samples, and give what was counted."""
        module = self._module
        module.zero_grad(set_to_none=True)
        inputs, targets = example
        with self._mode:
            given = {name: _like(tensor, size) for name, tensor in inputs.items()}
            wanted = _like(targets, size)
        live = _Live([*module.parameters(), *module.buffers()], copies=self._copies)
        for tensor in (*given.values(), wanted):
            live.born(tensor)
        trained = [p for p in module.parameters() if p.requires_grad]
        hooks = [cast(Any, p).register_post_accumulate_grad_hook(live.gradient) for p in trained]
        try:
            with self._mode, live, recomputing(module, self._recompute):
                with torch.autocast("cpu", dtype=self._dtype or torch.bfloat16, enabled=self._dtype is not None):
                    outputs = wide(module(**given))
                    total = loss(outputs, wanted).float().sum()
                total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        finally:
            for hook in hooks:
                hook.remove()
        return live


def _ghost(module: nn.Module) -> nn.Module:
    """Copy a module without its data: the copy's tensors are shapes alone."""
    instead: dict[int, Any] = {}
    for parameter in module.parameters():
        empty = torch.empty(parameter.shape, dtype=parameter.dtype, device="cpu")
        instead[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    for buffer in module.buffers():
        instead[id(buffer)] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")
    return copy.deepcopy(module, instead)


def _like(tensor: Tensor, size: int) -> Tensor:
    shape = (size, *tensor.shape[1:])
    return torch.empty(shape, dtype=tensor.dtype, device="cpu")


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its hooks untyped
    """Counts what lives, what is computed and what is moved while it is on."""

    def __init__(self, standing: list[Tensor], *, copies: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the same
        self.now = self.grown = self.operations = 0
        self.course: list[int] = []
        """What lived at each moment, but for gradients of weights."""
        self.whole: list[int] = []
        """The same with those."""
        self.flops = self.traffic = 0.0
        self._standing = [t.untyped_storage() for t in standing]  # held, so that no other takes their identity
        self._apart = {id(s) for s in self._standing}
        self._alive: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._copies = copies

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func.namespace == "prim":  # a question for a tensor's device
            return out
        if self._copies:
            self._note(held_by(func, args, out))
        made = [out] if isinstance(out, Tensor) else [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        fresh = [self.born(t) for t in made]
        if any(fresh) or func._schema.is_mutable:
            self.operations += 1
            read = [t for t in args if isinstance(t, Tensor)]
            self.traffic += sum(t.numel() * t.element_size() for t in (*read, *made))
        packet = func._overloadpacket
        if packet in flop_registry:
            self.flops += flop_registry[packet](*args, **kwargs, out_val=out)
        return out

    def born(self, tensor: Tensor) -> bool:
        """Count a tensor's memory from now until nobody holds it; false where it was counted before."""
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._alive or key in self._apart:
            return False
        size = storage.nbytes()
        self._alive[key] = (weakref.ref(storage, lambda _: self._gone(key)), size)
        self.now += size
        self._note(0)
        return True

    def _note(self, besides: int) -> None:
        self.course.append(self.now + besides)
        self.whole.append(self.now + self.grown + besides)

    def gradient(self, parameter: Tensor) -> None:
        """From here on it is a gradient of a parameter, which the ledger counts."""
        if parameter.grad is None:
            return
        storage = parameter.grad.untyped_storage()
        self._standing.append(storage)
        self._apart.add(id(storage))
        if id(storage) in self._alive:
            self.grown += storage.nbytes()
        self._gone(id(storage))

    def _gone(self, key: int) -> None:
        _, size = self._alive.pop(key, (None, 0))
        self.now -= size
