"""Training on one device: the same as a plain loop, whatever the pieces, and with clear ends."""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="deep training needs the extra 'deep'")

from tests.train.small import RECIPE, Cloud, Lost, Narrow, Net, NormNet, accuracy, loss, net
from torch import Tensor, nn

from tidemill.core.errors import DataError, OptionError, TrialError, TrialMemoryError
from tidemill.train import checkpoint
from tidemill.train.cursor import Cursor
from tidemill.train.runtime import predict, predicted, train
from tidemill.train.schedule import factor, steps_of
from tidemill.train.types import Event, Limits, Placement, Recipe, Stop

CPU = Placement(device="cpu", micro_batch=13)


def plain_loop(module: Net, recipe: Recipe, cloud: Cloud, seed: int = 0) -> list[float]:
    """The training as anyone would write it, for comparison."""
    vectors = [p for p in module.parameters() if p.ndim == 1]
    rest = [p for p in module.parameters() if p.ndim > 1]
    groups = [{"params": rest, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.999))
    steps = steps_of(recipe.epochs, len(cloud), recipe.batch)
    cursor, losses = Cursor(len(cloud), recipe.batch, seed), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * factor(recipe, step, steps)
        inputs, targets = cloud.batch(cursor.indices(step), train=False, rng=np.random.default_rng(0))
        value = loss(module(**inputs), targets).mean()
        optimizer.zero_grad()
        value.backward()
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(module.parameters(), recipe.clip_norm)
        optimizer.step()
        losses.append(float(value.detach()))
    return losses


def test_it_is_the_plain_loop() -> None:
    recipe = replace(RECIPE, ema=None)
    module, other = net(), net()
    trained = train(module, loss, Cloud(), recipe, plan=CPU)
    assert trained.stop is Stop.DONE
    np.testing.assert_allclose(trained.losses, plain_loop(other, recipe, Cloud()), atol=1e-6)
    for mine, theirs in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("size", [1, 2, 5, 6, 12, 50])
def test_the_size_of_pieces_changes_nothing(size: int) -> None:
    whole = train(net(), loss, Cloud(), RECIPE, plan=CPU)
    cut = train(net(), loss, Cloud(), RECIPE, plan=replace(CPU, micro_batch=size))
    assert cut.placement.micro_batch == min(size, 13)
    np.testing.assert_allclose(cut.losses, whole.losses, atol=1e-6)


def test_recomputation_changes_nothing() -> None:
    whole = train(net(), loss, Cloud(), RECIPE, plan=CPU)
    again = train(net(), loss, Cloud(), RECIPE, plan=replace(CPU, recompute="blocks"))
    np.testing.assert_allclose(again.losses, whole.losses, atol=1e-6)


def test_a_piece_is_found_without_a_plan() -> None:
    heard: list[Event] = []
    trained = train(net(), loss, Cloud(), RECIPE, plan=Placement(device="cpu"), on_event=heard.append)
    assert trained.placement.micro_batch == 13
    assert [e.kind for e in heard if e.kind == "micro_batch"] == ["micro_batch"]


@pytest.mark.parametrize("given", [None, 13])
def test_out_of_memory_halves_the_piece_and_keeps_the_batch(given: int | None) -> None:
    torch.manual_seed(1)
    module = Narrow(most=4)
    trained = train(module, loss, Cloud(), RECIPE, plan=replace(CPU, micro_batch=given))
    assert 1 <= (trained.placement.micro_batch or 0) <= 4
    np.testing.assert_allclose(trained.losses, train(net(), loss, Cloud(), RECIPE, plan=CPU).losses, atol=1e-6)


def test_a_sample_that_does_not_fit_is_said() -> None:
    with pytest.raises(TrialMemoryError, match="One sample is too much"):
        train(Narrow(most=0), loss, Cloud(), RECIPE, plan=replace(CPU, micro_batch=None))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_pause_is_not_to_be_seen_in_the_losses(tmp_path: Path, optimizer: str, noise: float) -> None:
    recipe = replace(RECIPE, optimizer=optimizer, lr=0.02, patience=None)
    cloud, check = Cloud(noise=noise), Cloud(30, seed=5)
    module = net()
    module.insert = nn.Dropout(0.2)  # a part that is not used must not disturb
    whole = train(copy.deepcopy(module), loss, cloud, recipe, validation=check, score=accuracy, plan=CPU)
    parts = copy.deepcopy(module)
    for until in (0.4, 1.0, 2.5):
        paused = train(
            parts, loss, cloud, recipe, validation=check, score=accuracy, plan=CPU,
            folder=tmp_path, limits=Limits(epochs=until),
        )  # fmt: skip
        assert paused.stop is Stop.PAUSED
        parts = copy.deepcopy(module)  # a new process begins with new weights
    ended = train(parts, loss, cloud, recipe, validation=check, score=accuracy, plan=CPU, folder=tmp_path)
    assert ended.stop is Stop.DONE
    assert ended.losses == whole.losses
    assert ended.curve[-1].loss == whole.curve[-1].loss
    assert ended.best is not None
    assert ended.seconds > 0


def test_a_training_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    module = net()
    train(module, loss, Cloud(), RECIPE, plan=CPU, folder=tmp_path)
    again = net(seed=8)
    trained = train(again, loss, Cloud(), RECIPE, plan=CPU, folder=tmp_path)
    assert trained.stop is Stop.DONE
    assert trained.step == 15
    for mine, theirs in zip(module.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_best_weights_are_kept() -> None:
    module, check = net(), Cloud(40, seed=7)
    recipe = replace(RECIPE, lr=0.5, epochs=10, ema=None, clip_norm=None, warmup=0, schedule="constant")
    trained = train(module, loss, Cloud(), recipe, validation=check, plan=CPU)
    assert trained.best is not None
    assert trained.best.loss == min(p.loss for p in trained.curve if p.loss is not None)
    outputs = torch.from_numpy(predict(module, check, device="cpu"))
    assert float(loss(outputs, torch.from_numpy(check.y)).mean()) == pytest.approx(trained.best.loss, abs=1e-5)


def test_the_average_is_what_is_measured_and_kept() -> None:
    module, check = net(), Cloud(40, seed=7)
    trained = train(module, loss, Cloud(), replace(RECIPE, keep_best=False), validation=check, plan=CPU)
    outputs = torch.from_numpy(predict(module, check, device="cpu"))
    assert float(loss(outputs, torch.from_numpy(check.y)).mean()) == pytest.approx(trained.curve[-1].loss, abs=1e-5)
    plain = net()
    train(plain, loss, Cloud(), replace(RECIPE, ema=None), plan=CPU)
    assert not torch.equal(plain.head.weight, module.head.weight)


def test_no_progress_ends_it() -> None:
    recipe = replace(RECIPE, lr=1e-12, patience=2, epochs=50, ema=None)
    trained = train(net(), loss, Cloud(), recipe, validation=Cloud(10, seed=2), score=accuracy, plan=CPU)
    assert trained.stop is Stop.PLATEAU
    assert len(trained.curve) == 3


class Slow(Cloud):
    """Takes its time with every batch."""

    def batch(self, indices, *, train, rng):  # type: ignore[no-untyped-def]
        time.sleep(0.05)
        return super().batch(indices, train=train, rng=rng)


def test_the_deadline_ends_it_inside_of_an_epoch(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=100, batch=2)
    deadline = time.monotonic() + 3.0
    trained = train(
        net(), loss, Slow(200), recipe, validation=Cloud(8), plan=replace(CPU, micro_batch=2),
        limits=Limits(deadline=deadline), folder=tmp_path,
    )  # fmt: skip
    assert trained.stop is Stop.TIME
    assert 0 < trained.epoch < 3
    assert trained.best is not None
    assert list(tmp_path.glob("step-*")), "it can go on"


def test_a_wish_to_end_is_heard_at_the_next_step(tmp_path: Path) -> None:
    asked = iter([False, False, True])
    limits = Limits(cancelled=lambda: next(asked))
    trained = train(net(), loss, Cloud(), RECIPE, plan=CPU, limits=limits, folder=tmp_path)
    assert (trained.stop, trained.step) == (Stop.CANCELLED, 3)


def test_the_last_evaluation_is_in_the_checkpoint_of_its_step(tmp_path: Path) -> None:
    """Also where a checkpoint that was due has been written after that step already."""
    asked = iter([False, False, True])
    recipe = replace(RECIPE, checkpoint_s=1e-9)
    check = Cloud(30, seed=5)
    module = net()
    trained = train(
        module, loss, Cloud(), recipe, validation=check, plan=CPU, folder=tmp_path,
        limits=Limits(cancelled=lambda: next(asked)),
    )  # fmt: skip
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert (found[1].step, found[1].best) == (3, trained.best)
    assert any(name.startswith("best.") for name in found[1].tensors)
    again = net(seed=9)
    paused = train(
        again, loss, Cloud(), recipe, validation=check, plan=CPU, folder=tmp_path, limits=Limits(epochs=3 * 13 / 50)
    )
    assert paused.curve == trained.curve
    for mine, theirs in zip(again.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_who_asks_for_an_end_has_the_checkpoint_before_the_evaluation(tmp_path: Path) -> None:
    heard: list[Event] = []
    train(
        net(), loss, Cloud(), RECIPE, validation=Cloud(30, seed=5), plan=CPU, folder=tmp_path,
        limits=Limits(cancelled=lambda: True), on_event=heard.append,
    )  # fmt: skip
    assert [e.kind for e in heard if e.kind in ("point", "checkpoint")] == ["checkpoint", "point", "checkpoint"]
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000001"]


def test_a_loader_that_fails_is_told_with_the_kind_of_its_error() -> None:
    class Gone(Cloud):
        def batch(self, indices, *, train, rng):  # type: ignore[no-untyped-def]
            raise FileNotFoundError("photo.png")

    with pytest.raises(TrialError, match=r"failed at step 1: FileNotFoundError: photo\.png"):
        train(net(), loss, Gone(), RECIPE, plan=CPU)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_sixteen_bits_learn_nearly_the_same(precision: str) -> None:
    recipe = replace(RECIPE, precision=precision, epochs=8)
    cloud = Cloud()
    low = train(net(), loss, cloud, recipe, plan=CPU)
    full = train(net(), loss, cloud, replace(recipe, precision="fp32"), plan=CPU)
    assert low.precision == precision
    np.testing.assert_allclose(low.losses, full.losses, atol=0.05)
    assert low.losses[-1] < 0.7 * low.losses[0]


class Explodes(nn.Module):
    """Gives a loss that is not a number from the third batch on."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Net()
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return self.inner(x) * (float("nan") if self.seen >= 3 else 1.0)


def test_a_loss_that_is_no_number_names_the_rate_and_keeps_the_batch(tmp_path: Path) -> None:
    cloud = Cloud()
    with pytest.raises(TrialError, match=r"loss is nan at step 3 .*learning rate of 0\.0\d") as caught:
        train(Explodes(), loss, cloud, RECIPE, plan=CPU, folder=tmp_path)
    path = tmp_path / "diverged-step-3.npz"
    assert str(path) in str(caught.value)
    with np.load(path, allow_pickle=False) as kept:
        np.testing.assert_array_equal(kept["indices"], Cursor(50, 13, 0).indices(2))
        np.testing.assert_array_equal(kept["input_x"], cloud.x[kept["indices"]])


@pytest.mark.parametrize("kept", [False, True], ids=["without a folder", "with a folder"])
def test_a_device_that_is_lost_is_named_with_its_step_and_how_to_go_on(kept: bool, tmp_path: Path) -> None:
    folder = tmp_path if kept else None
    recipe = replace(RECIPE, checkpoint_s=1e-9)
    broken = Lost(step=6)
    broken.load_state_dict(net().state_dict())
    with pytest.raises(TrialError) as caught:
        train(broken, loss, Cloud(), recipe, plan=CPU, folder=folder)
    told = "The device cpu failed at step 6: CUDA error: device-side assert triggered. "
    way = "Run it again: it goes on from the last checkpoint." if kept else "Run it again, with a folder to resume."
    assert str(caught.value) == told + way, "its first line, and no advice on kernels"
    assert not isinstance(caught.value, TrialMemoryError)
    assert isinstance(caught.value.__cause__, RuntimeError)
    if kept:
        assert max(path.name for path in tmp_path.glob("step-*")) == "step-000000005"
        again = train(net(seed=5), loss, Cloud(), recipe, plan=CPU, folder=tmp_path)
        assert again.losses == train(net(), loss, Cloud(), recipe, plan=CPU).losses


def test_a_device_that_is_lost_while_a_net_is_looked_at_is_named_too() -> None:
    class LostLater(Lost):
        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                raise RuntimeError(self.words)
            return super().forward(x)

    recipe = replace(RECIPE, evaluate_every=1.0)
    with pytest.raises(TrialError, match=r"The device cpu failed at step \d+: CUDA error: device-side assert"):
        train(LostLater(step=10**9), loss, Cloud(), recipe, validation=Cloud(20, seed=1), plan=CPU)


def test_overflow_in_sixteen_bits_scales_the_loss_down() -> None:
    class Loud(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 100

    torch.manual_seed(1)
    heard: list[Event] = []
    recipe = replace(RECIPE, precision="fp16", epochs=8, lr=1e-4)
    trained = train(Loud(), loss, Cloud(), recipe, plan=CPU, on_event=heard.append)
    assert np.isfinite(trained.losses[-1])


def test_rates_differ_by_the_beginning_of_a_name() -> None:
    module = net()
    before = module.stem.weight.detach().clone()
    train(module, loss, Cloud(), replace(RECIPE, lr_scales={"stem.": 0.0}, ema=None), plan=CPU)
    assert torch.equal(module.stem.weight, before)


def test_what_wants_no_gradient_stays(tmp_path: Path) -> None:
    module = net(unused=True)
    module.stem.requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    train(module, loss, Cloud(), RECIPE, plan=CPU, folder=tmp_path)
    assert torch.equal(module.stem.weight, before["stem.weight"])
    assert torch.equal(module.idle.weight, before["idle.weight"])
    again = net(seed=4, unused=True)
    again.stem.requires_grad_(False)
    assert train(again, loss, Cloud(), RECIPE, plan=CPU, folder=tmp_path).step == 15
    module.requires_grad_(False)
    with pytest.raises(OptionError, match="nothing to train"):
        train(module, loss, Cloud(), RECIPE, plan=CPU)


def test_statistics_of_batches_are_not_disturbed_by_trials() -> None:
    module = NormNet()
    train(module, loss, Cloud(), replace(RECIPE, epochs=1), plan=Placement(device="cpu"))
    assert int(module.body[0][1].num_batches_tracked) == 4


def test_a_gpu_that_is_not_there_is_said() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(OptionError, match="A GPU was asked for"):
        train(net(), loss, Cloud(), RECIPE, plan=Placement(device="cuda"))
    with pytest.raises(OptionError, match="not a device"):
        train(net(), loss, Cloud(), RECIPE, plan=Placement(device="gpu"))


def test_a_loss_that_averages_is_refused() -> None:
    with pytest.raises(DataError, match="one number for each of 13 samples"):
        train(net(), lambda o, t: loss(o, t).mean(), Cloud(), RECIPE, plan=CPU)


def test_samples_that_come_in_the_wrong_number_are_refused() -> None:
    class Short(Cloud):
        def batch(self, indices, *, train, rng):  # type: ignore[no-untyped-def]
            return super().batch(indices[:-1], train=train, rng=rng)

    with pytest.raises(DataError, match="13 samples were asked for, but 'x' came with the shape"):
        train(net(), loss, Short(), RECIPE, plan=CPU)
    with pytest.raises(DataError, match="no samples"):
        train(net(), loss, Cloud(0), RECIPE, plan=CPU)


def test_a_target_out_of_range_is_no_traceback() -> None:
    cloud = Cloud()
    cloud.y = cloud.y + 7
    with pytest.raises(TrialError, match="The module failed at step 1"):
        train(net(), loss, cloud, RECIPE, plan=CPU)


def test_prediction_is_in_order_and_of_any_piece_size() -> None:
    module, cloud = net(), Cloud(37)
    whole = predict(module, cloud, micro_batch=100, device="cpu")
    assert whole.shape == (37, 3)
    np.testing.assert_allclose(predict(module, cloud, micro_batch=5, device="cpu"), whole, atol=1e-6)
    numbers = np.concatenate([indices for indices, _ in predicted(module, cloud, micro_batch=5, device="cpu")])
    assert numbers.tolist() == list(range(37))
