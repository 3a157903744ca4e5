"""The repeated blocks of a module: what is recomputed as one, and what is gathered and scattered as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import is_grad_enabled, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def repeated_blocks(module: nn.Module) -> dict[str, nn.Module]:
    """Find the blocks that a module repeats, by name.

    A block is an entry of a ``ModuleList`` or ``Sequential`` that has parameters and parts of its own, and siblings of
    its class. Where blocks hold smaller repeated blocks with most of their parameters (stages of layers), those count.

    Examples
    --------
    >>> layer = lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    >>> list(repeated_blocks(nn.ModuleDict({"stem": layer(), "body": nn.Sequential(layer(), layer())})))
    ['body.0', 'body.1']
    """
    entries = _entries(module) if isinstance(module, (nn.ModuleList, nn.Sequential)) else {}
    if entries:
        return {name: b for part, block in entries.items() for name, b in _finest(part, block).items()}
    inner = {name: repeated_blocks(child) for name, child in module.named_children()}
    return {f"{name}.{part}": block for name, found in inner.items() for part, block in found.items()}


def _entries(container: nn.Module) -> dict[str, nn.Module]:
    """Entries of a container that are blocks; none where they are not repeated."""
    large = {n: c for n, c in container.named_children() if next(c.children(), None) is not None and _size(c)}
    kinds = Counter(type(c) for c in large.values())
    return {n: c for n, c in large.items() if kinds[type(c)] > 1}


def _finest(name: str, block: nn.Module) -> dict[str, nn.Module]:
    inner = repeated_blocks(block)
    if 2 * sum(map(_size, inner.values())) < _size(block) or not inner:
        return {name: block}
    return {f"{name}.{part}": b for part, b in inner.items()}


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@contextmanager
def recomputing(module: nn.Module, policy: str) -> Iterator[None]:
    """Let the repeated blocks compute their activations again in the backward pass, while this lasts.

    Names, parameters and hooks of the module stay as they are: only the blocks' ``forward`` is covered.

    Parameters
    ----------
    module : nn.Module
        Whose blocks.
    policy : {"none", "blocks"}
        ``none`` changes nothing.
    """
    covered = list(repeated_blocks(module).values()) if policy == "blocks" else []
    for block in covered:
        block.forward = _twice(block, block.forward)
    try:
        yield
    finally:
        for block in covered:
            del block.forward  # the class's own shows again


def keeps_statistics(block: nn.Module) -> bool:
    """Whether passes leave statistics of batches behind."""
    return any(isinstance(m, _BatchNorm) and m.track_running_stats for m in block.modules())


def _twice(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _still(block)

    # A compiler can take a block apart that is recomputed without more ado.
    more: dict[str, Any] = {"context_fn": contexts} if keeps_statistics(block) else {}

    def covered(*args: Any, **kwargs: Any) -> Any:
        if not is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **more, **kwargs)

    return covered


@contextmanager
def _still(block: nn.Module) -> Iterator[None]:
    """Keep batch statistics from counting the same batch twice."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    before = [(m.momentum, None if m.num_batches_tracked is None else m.num_batches_tracked.clone()) for m in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            if count is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(count)
