"""Augmentation changes images in the ways that it names, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="augmentation works on tensors")

from tidemill.models.vision import augment as module
from tidemill.models.vision.augment import Augment


def batch(count: int = 16, channels: int = 3, side: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.from_numpy(
        np.random.default_rng(0).uniform(0, 255, (count, channels, side, side)).astype(np.float32)
    )
    return images, torch.arange(count) % 3


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def test_nothing_is_the_default() -> None:
    images, targets = batch()
    after, labels = Augment()(images, targets, rng(), 3)
    assert after is images
    assert labels is targets


@pytest.mark.parametrize(
    "augment",
    [
        Augment(flip=True), Augment(shift=0.2), Augment(rotate=10, zoom=0.1, shift=0.1), Augment(cutout=0.5),
        Augment(trivial=True), Augment(randaugment=2), Augment(randaugment=1, magnitude=30),
        Augment(mix="mixup"), Augment(mix="cutmix"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("channels", [1, 3])
def test_the_same_draws_give_the_same_batch_in_the_same_range(augment: Augment, channels: int) -> None:
    images, targets = batch(channels=channels)
    before = images.clone()
    one, labels = augment(images, targets, rng(), 3)
    two, _ = augment(images, targets, rng(), 3)
    assert torch.equal(one, two)
    assert torch.equal(images, before), "the batch that was given stays as it is"
    assert one.shape == images.shape
    assert not torch.equal(one, images)
    assert 0 <= one.min() <= one.max() <= 255 + 1e-3
    assert len(labels) == len(targets)


def test_flip_mirrors_some_and_leaves_the_others() -> None:
    images, _ = batch(64)
    after = module.flip(images, rng())
    kept = [torch.equal(a, b) for a, b in zip(after, images, strict=True)]
    turned = [torch.equal(a, b.flip(-1)) for a, b in zip(after, images, strict=True)]
    assert all(k != t for k, t in zip(kept, turned, strict=True))
    assert 16 < sum(turned) < 48


def test_shift_moves_whole_pixels() -> None:
    images = torch.zeros(32, 1, 9, 9)
    images[:, 0, 4, 4] = 1
    after = module.shift(images, 0.25, rng())
    where = after.flatten(1).argmax(dim=1)
    assert after.sum(dim=(1, 2, 3)).eq(1).all()
    assert ((where // 9 - 4).abs() <= 2).all()
    assert len(set(where.tolist())) > 5


def test_a_matrix_that_moves_nothing_gives_the_image_back() -> None:
    images, _ = batch()
    still = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).expand(len(images), 2, 3)
    assert torch.allclose(module.affine(images, still), images, atol=1e-2)


def test_cutout_covers_at_most_its_square() -> None:
    images, _ = batch(side=16)
    changed = (module.cutout(images, 0.25, rng()) != images).any(dim=1).sum(dim=(1, 2))
    assert changed.max() == 16
    assert (changed <= 16).all()


@pytest.mark.parametrize("how", ["mixup", "cutmix"])
def test_blended_labels_are_shares_that_sum_to_one(how: str) -> None:
    images, targets = batch()
    _, shares = module.blend(images, targets, rng(), 3, how)
    assert shares.shape == (16, 3)
    assert torch.allclose(shares.sum(dim=1), torch.ones(16))


def test_cutmix_counts_the_pixels_that_it_takes() -> None:
    images = torch.arange(8.0).reshape(8, 1, 1, 1).expand(8, 1, 10, 10).contiguous()
    mixed, shares = module.blend(images, torch.arange(8), rng(), 8, "cutmix")
    for i in range(8):
        assert float((mixed[i] == i).float().mean()) == pytest.approx(float(shares[i, i]), abs=1e-5)


def test_values_are_never_blended() -> None:
    images, targets = batch()
    _, labels = Augment(mix="mixup")(images, targets, rng(), 0)
    assert torch.equal(labels, targets)


def test_it_reads_what_a_config_names() -> None:
    found = Augment.of({"net.flip": True, "net.mix": "mixup", "net.lr": 0.1, "other.shift": 0.5}, "net")
    assert found == Augment(flip=True, mix="mixup")


def test_randaugment_does_more_the_more_operations_and_the_stronger_they_are() -> None:
    images, _ = batch(64, side=16)

    def changed(count: int, magnitude: int) -> float:
        return float((module.randaugment(images, count, magnitude, rng()) - images).abs().mean())

    assert changed(1, 5) < changed(1, 25)
    assert changed(1, 9) < changed(3, 9)


def test_its_own_operations_do_what_they_are_called() -> None:
    images = torch.linspace(60, 120, 64).reshape(1, 1, 8, 8)
    still = np.zeros(1)
    stretched = module._operate(images, np.array([9]), still)
    assert (float(stretched.min()), float(stretched.max())) == (0.0, 255.0)
    assert torch.equal(module._operate(images, np.array([10]), still), images), "of no strength it leaves all tones"
    half = module._operate(images, np.array([10]), np.array([0.6]))
    bright = images >= 256 * 0.4
    assert torch.allclose(half, torch.where(bright, 255 - images, images))
    spot = torch.zeros(1, 1, 9, 9)
    spot[0, 0, 4, 4] = 90
    blurred = module._operate(spot, np.array([11]), np.array([-1.0]))
    assert 0 < float(blurred[0, 0, 3, 3]) < float(blurred[0, 0, 4, 4]) < 90
    one_tone = torch.full((1, 1, 4, 4), 70.0)
    assert torch.equal(module._operate(one_tone, np.array([9]), still), one_tone)


def test_trivial_draws_from_its_own_operations_only(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(module, "_operate", lambda images, kind, strength: drawn.extend(kind.tolist()) or images)
    images, _ = batch(300)
    module.trivial(images, rng())
    assert set(drawn) == set(range(9))
    drawn.clear()
    module.randaugment(images, 2, 9, rng())
    assert set(drawn) == set(range(12))
