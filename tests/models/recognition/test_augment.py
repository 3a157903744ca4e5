"""Lines may be distorted, as long as they stay the same text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="batches are changed by torch")

from tests.models.recognition.made import data

from tidemill.models.recognition.augment import Distortion, around, bend, blur, ink, shade
from tidemill.models.recognition.samples import PADDING, LineSamples, numbers_of, side_by_side


def batch() -> torch.Tensor:
    _, train, _ = data(32)
    return torch.from_numpy(side_by_side([train.x[i] for i in range(8)]))


@pytest.mark.parametrize("change", [bend, ink, blur, shade, lambda x, rng, _: Distortion(2.0)(x, rng)])
def test_shape_and_range_stay_and_the_same_draws_give_the_same_batch(change: Any) -> None:
    images = batch()
    before = images.clone()
    one, two = (change(images, np.random.default_rng(3), 1.0) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(images, before), "what is stored is never changed"
    assert one.shape == images.shape
    assert not torch.equal(one, images)
    assert float(one.min()) >= -1e-3
    assert float(one.max()) <= 255 + 1e-3


def test_around_a_pixel_is_what_pooling_finds() -> None:
    images = torch.rand(3, 1, 7, 11)
    pool = torch.nn.functional.max_pool2d
    assert torch.equal(around(images, torch.maximum), pool(images, 3, 1, 1))
    assert torch.equal(around(images, torch.minimum), -pool(-images, 3, 1, 1))
    room = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    mean = torch.nn.functional.avg_pool2d(room, 3, 1)
    assert torch.allclose(around(images, torch.add) / 9, mean, atol=1e-6)


def test_ink_is_still_there() -> None:
    images = batch()
    for seed in range(5):
        after = Distortion(1.0)(images, np.random.default_rng(seed)).flatten(1)
        assert bool((after.median(dim=1).values - after.quantile(0.01, dim=1) > 40).all())


def test_nothing_is_done_where_nothing_is_asked() -> None:
    images = batch()
    assert Distortion()(images, np.random.default_rng(0)) is images


def test_a_batch_is_as_wide_as_its_widest_line_and_targets_count_steps() -> None:
    profile, train, _ = data(32)
    samples = LineSamples(train, profile.alphabet, Distortion(1.0))
    indices = np.arange(6)
    widths = [train.x[i].shape[1] for i in indices]
    inputs, targets = samples.batch(indices, train=False, rng=np.random.default_rng(0))
    assert inputs["images"].shape == (6, 1, 16, max(widths))
    assert targets[:, 0].tolist() == [w // 4 for w in widths]
    assert torch.equal(inputs["images"][0, 0, :, : widths[0]], torch.from_numpy(train.x[0]).float())
    _, trained = samples.batch(indices, train=True, rng=np.random.default_rng(0))
    assert trained[:, 0].tolist() == [max(widths) // 4] * 6
    assert torch.equal(trained[:, 1:], targets[:, 1:])
    texts = ["".join(profile.alphabet[n - 1] for n in row if n != PADDING) for row in targets[:, 1:].tolist()]
    assert texts == ["".join(map(chr, [c for c in train.y[i] if c >= 0])) for i in indices]


def test_a_character_that_is_not_known_is_left_out() -> None:
    from tidemill.core import transcripts

    assert numbers_of(transcripts.to_codes(["a?b", "??"]), "ab").tolist() == [[1, 2, -1], [-1, -1, -1]]
