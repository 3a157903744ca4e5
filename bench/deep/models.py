# ruff: noqa: D102, D106  what `forward` and `batch` do is said by their contracts
"""Twenty small models of many kinds, with samples of random numbers: for measuring memory and placements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class Noise:
    """Random inputs of a shape, or random words of a vocabulary, with random classes."""

    shape: tuple[int, ...]
    classes: int
    words: int = 0
    per_word: bool = False
    size: int = 4096

    def __len__(self) -> int:
        return self.size

    def batch(
        self, indices: NDArray[np.int64], *, train: bool, rng: np.random.Generator
    ) -> tuple[dict[str, Tensor], Tensor]:
        rows = [self._sample(int(index)) for index in indices]
        return {"x": torch.stack([x for x, _ in rows])}, torch.stack([y for _, y in rows])

    def _sample(self, index: int) -> tuple[Tensor, Tensor]:
        """Give a sample that depends on its number alone."""
        rng = torch.Generator().manual_seed(index)
        x = (
            torch.randint(self.words, self.shape, generator=rng)
            if self.words
            else torch.randn(self.shape, generator=rng)
        )
        return x, torch.randint(self.classes, self.shape if self.per_word else (), generator=rng)


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    if targets.ndim == 1:
        return F.cross_entropy(outputs, targets, reduction="none")
    flat = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
    return flat.view_as(targets).mean(1)


class Whole(nn.Module):
    """Names the input of a chain of layers."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def mlp(width: int, depth: int) -> nn.Module:
    blocks = (nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(depth))
    return Whole(nn.Linear(64, width), *blocks, nn.Linear(width, 10))


def vgg(width: int) -> nn.Module:
    layers: list[nn.Module] = []
    before = 3
    for now in (width, 2 * width, 4 * width):
        layers += [nn.Conv2d(before, now, 3, padding=1), nn.ReLU(), nn.Conv2d(now, now, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
        before = now
    return Whole(*layers, nn.Flatten(), nn.LazyLinear(10))


class Residual(nn.Module):
    """Two convolutions around a short cut, with batch normalisation."""

    def __init__(self, width: int, groups: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=groups, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 1 if groups > 1 else 3, padding=0 if groups > 1 else 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


def resnet(width: int, depth: int, groups: int = 1) -> nn.Module:
    blocks = nn.Sequential(*(Residual(width, groups) for _ in range(depth)))
    return Whole(nn.Conv2d(3, width, 3, padding=1), blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


class Block(nn.Module):
    """A transformer's layer, with attention that keeps no square matrix."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.heads, self.causal = heads, causal

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(self.norm1(x)).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Speaker(nn.Module):
    """A language model; with ``classes`` an encoder of whole texts."""

    def __init__(self, words: int, width: int, layers: int, length: int, classes: int = 0) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.place = nn.Parameter(torch.zeros(length, width))
        self.blocks = nn.ModuleList(Block(width, 4, causal=not classes) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes or words)
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.place
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x.mean(1) if self.classes else x)


class Viewer(nn.Module):
    """A vision transformer."""

    def __init__(self, width: int, layers: int, patch: int) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, width, patch, stride=patch)
        self.blocks = nn.ModuleList(Block(width, 4, causal=False) for _ in range(layers))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cut(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


class Mixer(nn.Module):
    """Tokens mixed by layers alone."""

    class Layer(nn.Module):
        def __init__(self, tokens: int, width: int) -> None:
            super().__init__()
            self.across = nn.Sequential(nn.Linear(tokens, 2 * tokens), nn.GELU(), nn.Linear(2 * tokens, tokens))
            self.along = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.across(x.transpose(1, 2)).transpose(1, 2)
            return x + self.along(x)

    def __init__(self, tokens: int, width: int, layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Mixer.Layer(tokens, width) for _ in range(layers))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


class Faces(nn.Module):
    """A large head of normalised classes, as face recognition has it."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width))
        self.weight = nn.Parameter(torch.randn(classes, width) / width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return 16 * F.linear(F.normalize(self.body(x)), F.normalize(self.weight))


class Unet(nn.Module):
    """Down and up again, with bridges."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU())
        self.down2 = nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.last = nn.Conv2d(2 * width, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        high = self.down1(x)
        return self.last(torch.cat([high, self.up(self.down2(high))], 1)).mean((2, 3))


class Ratings(nn.Module):
    """Embeddings of many categories, and a small net on them."""

    def __init__(self, words: int, width: int, fields: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.net = nn.Sequential(nn.Linear(fields * width, 512), nn.ReLU(), nn.Linear(512, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.embed(x).flatten(1))


class Neighbours(nn.Module):
    """Messages along the edges of one small graph for each sample."""

    def __init__(self, nodes: int, width: int, layers: int) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.register_buffer("source", torch.randint(nodes, (8 * nodes,), generator=rng))
        self.register_buffer("target", torch.randint(nodes, (8 * nodes,), generator=rng))
        self.layers = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(layers))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            heard = torch.zeros_like(x).index_add(1, self.target, x[:, self.source])
            x = F.relu(layer(torch.cat([x, heard], -1)))
        return self.head(x.mean(1))


class Tones(nn.Module):
    """Convolutions over time."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(8, width, 7, padding=3),
            *(nn.Sequential(nn.Conv1d(width, width, 5, padding=2), nn.GELU()) for _ in range(layers)),
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean(2))


@dataclass(frozen=True)
class Case:
    """A model, its samples, and how it is trained."""

    name: str
    make: Callable[[], nn.Module]
    samples: Noise
    micro_batch: int
    optimizer: str = "adamw"
    recompute: str = "none"


_IMAGE, _TEXT = (3, 32, 32), (128,)


def cases() -> list[Case]:
    """Twenty of them; each takes some hundred megabytes."""
    text = Noise(_TEXT, 2000, words=2000, per_word=True)
    titles = Noise(_TEXT, 10, words=8000)
    image = Noise(_IMAGE, 10)
    gpt, vit, res = partial(Speaker, 2000, 256, 6, 128), partial(Viewer, 256, 6, 4), partial(resnet, 64, 6)
    return [
        Case("mlp wide", lambda: mlp(3000, 4), Noise((64,), 10), 256),
        Case("mlp deep, sgd", lambda: mlp(1500, 12), Noise((64,), 10), 512, "sgd"),
        Case("mlp deep, recomputed", lambda: mlp(1000, 16), Noise((64,), 10), 2048, "adamw", "blocks"),
        Case("vgg", lambda: vgg(32), image, 128),
        Case("resnet", res, image, 64),
        Case("resnet, recomputed", res, image, 128, "adamw", "blocks"),
        Case("resnet, sgd", lambda: resnet(96, 4), image, 64, "sgd"),
        Case("depthwise", lambda: resnet(128, 6, groups=128), image, 64),
        Case("gpt", gpt, text, 16),
        Case("gpt, recomputed", gpt, text, 32, "adamw", "blocks"),
        Case("gpt, wide", lambda: Speaker(2000, 512, 4, 128), text, 8),
        Case("text encoder", lambda: Speaker(8000, 256, 6, 128, classes=10), titles, 32),
        Case("vision transformer", vit, image, 48),
        Case("vision transformer, recomputed", vit, image, 128, "adamw", "blocks"),
        Case("mixer", lambda: Mixer(64, 256, 8), Noise((64, 256), 10), 64),
        Case("faces, 50,000 classes", lambda: Faces(50_000, 256), Noise((64,), 50_000), 256, "sgd"),
        Case("u-net", lambda: Unet(48), Noise((3, 64, 64), 10), 32),
        Case("ratings, 200,000 categories", lambda: Ratings(200_000, 64, 20), Noise((20,), 10, words=200_000), 512),
        Case("graph", lambda: Neighbours(200, 64, 4), Noise((200, 64), 10), 32),
        Case("sound", lambda: Tones(128, 6), Noise((8, 1024), 10), 48),
    ]
