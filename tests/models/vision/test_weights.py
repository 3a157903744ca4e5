"""Weights come from files that run nothing, and go where they fit."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import data_folder

from tidemill.core.errors import DataError, NotFoundError
from tidemill.models.vision.weights import (
    fill_by_name,
    looks_like_resnet,
    read_safetensors,
    weights_file,
    write_safetensors,
)

TENSORS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(7, dtype=np.int64)}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_safetensors(TENSORS, tmp_path / "model.safetensors")
    found = read_safetensors(weights_file(tmp_path))
    assert set(found) == set(TENSORS)
    assert all(np.array_equal(found[n], v) and found[n].dtype == v.dtype for n, v in TENSORS.items())


def test_half_precision_of_the_brain_kind_is_widened(tmp_path: Path) -> None:
    header = json.dumps({"b": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    raw = (np.float32([1.5, -2.0]).view(np.uint32) >> 16).astype("<u2").tobytes()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + raw)
    assert read_safetensors(tmp_path / "x.safetensors")["b"].tolist() == [1.5, -2.0]


def test_no_weights_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no weights at .*model\.safetensors.*a name of the Hugging Face hub"):
        weights_file(tmp_path)


def test_a_form_that_can_run_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"x")
    with pytest.raises(DataError, match="Only weights in the form of safetensors"):
        weights_file(tmp_path / "model.pt")


@pytest.mark.parametrize("damage", [b"", b"\xff" * 8, struct.pack("<Q", 4) + b"nope", struct.pack("<Q", 2) + b"[]"])
def test_damage_is_told(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(damage)
    with pytest.raises(DataError, match=r"x\.safetensors: The weights can't be read"):
        read_safetensors(tmp_path / "x.safetensors")


def test_a_tensor_that_is_cut_off_is_named(tmp_path: Path) -> None:
    write_safetensors(TENSORS, tmp_path / "x.safetensors")
    data = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(data[:-4])
    with pytest.raises(DataError, match="The tensor 'n'"):
        read_safetensors(tmp_path / "x.safetensors")


def test_weights_that_don_t_fit_are_named_with_their_shapes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="fills a module of torch")
    net = torch.nn.Sequential(torch.nn.Linear(3, 2))
    with pytest.raises(DataError, match=r"'0\.weight' is \(2, 4\), not \(2, 3\); '0\.bias' is missing"):
        fill_by_name(net, {"0.weight": np.zeros((2, 4), np.float32)}, "somewhere", ())


def test_the_published_resnet20_loads_and_sees_what_it_learned(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="runs a net")
    root = data_folder()
    if root is None or not (root / "checkpoints" / "resnet20_cifar10").is_dir():
        pytest.skip("the open data has no checkpoint here")
    import io
    import zipfile

    from PIL import Image

    from tidemill.core.task import Task, TaskKind
    from tidemill.models.vision._base import ImageProfile
    from tidemill.models.vision._net import wrap
    from tidemill.models.vision.families.resnet import FAMILY

    place = str(root / "checkpoints" / "resnet20_cifar10")
    assert looks_like_resnet(place, 3)
    assert not looks_like_resnet(place, 1)
    mean, std = (tuple(255 * v for v in vs) for vs in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    profile = ImageProfile(1000, 32, 32, 3, mean, std, weights=(place,))
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    task = Task(TaskKind.MULTICLASS, "label", classes)
    config = FAMILY.space(task, profile).default()
    assert config["resnet.weights"] == place
    net = wrap(FAMILY.build(FAMILY.laid(config), 10, profile), task, profile).eval()
    fill_by_name(net.body, read_safetensors(weights_file(place)), place, ())
    assert sum(p.numel() for p in net.parameters()) == 269_722 + 0  # as published for ResNet-20 without its buffers
    with zipfile.ZipFile(root / "image" / "cifar10" / "test.zip") as archive:
        names = [n for n in archive.namelist() if n.endswith(".jpg")][::10]
        pixels = [np.asarray(Image.open(io.BytesIO(archive.read(n))).convert("RGB")) for n in names]
    x = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        said = net(x).argmax(dim=1).numpy()
    right = np.mean([classes[c] == n.split("/")[-2] for c, n in zip(said, names, strict=True)])
    assert right > 0.72  # 80.4 % on all of these copies
