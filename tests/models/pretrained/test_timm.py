"""Backbones of timm: told by their folder, refused in words where it is not here, and as timm has them where it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models.pretrained.made import SIDE, TINY_VIT, described, saved, timm_or_skip

from tidemill.core.errors import DataError, MissingExtraError
from tidemill.models.fusion.folders import side_of_images
from tidemill.models.pretrained import timm
from tidemill.models.pretrained.folders import describe, is_of_timm
from tidemill.models.pretrained.sight import Sight, normalisation

WHERE = "tidemill[deep,timm]"


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = timm.find_spec
    monkeypatch.setattr(timm, "find_spec", lambda name: None if name == "timm" else whole(name))


def test_a_folder_of_timm_is_told_by_its_description_and_says_how_it_sees(tmp_path: Path) -> None:
    folder = described(tmp_path / "net")
    assert is_of_timm(folder)
    found = describe(folder)
    assert Sight.of(found) == Sight(96, "bicubic", 0.75)
    assert normalisation(folder, found) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert side_of_images(folder) == 128, "of which three quarters are looked at"
    whole = describe(described(tmp_path / "whole", crop_mode="border", interpolation="lanczos"))
    assert Sight.of(whole) == Sight(96, "bilinear", 1.0)
    (tmp_path / "net" / "config.json").write_text('{"architecture": "resnet18"}')
    assert not is_of_timm(folder)
    with pytest.raises(DataError, match="it names no model_type"):
        describe(folder)


@pytest.mark.usefixtures("absent")
def test_without_timm_a_folder_of_it_is_refused_with_the_extra_to_install(tmp_path: Path) -> None:
    for package in ("torch", "transformers", "onnxscript"):
        pytest.importorskip(package, reason="without it the family is absent")
    from tests.models.vision.made import CLASSES

    from tidemill.models.pretrained.opening import PIXELS, open_folder, rebuild
    from tidemill.models.vision import pool
    from tidemill.models.vision._base import ImageProfile

    folder = described(tmp_path / "net")
    told = r"The package 'timm' is needed to open backbones of timm.*pip install 'tidemill\[deep,timm\]'"
    with pytest.raises(MissingExtraError, match=told):
        open_folder(folder, PIXELS, weights=True)
    with pytest.raises(MissingExtraError, match=told):
        rebuild(json.dumps(describe(folder)))
    with pytest.raises(MissingExtraError, match=told):
        pool.space(CLASSES, ImageProfile.of(np.zeros((50, 3, 8, 8), np.uint8), weights=(folder,)))


@pytest.mark.usefixtures("absent")
def test_without_timm_the_pool_says_so_of_each_of_its_architectures() -> None:
    for package in ("torch", "transformers", "onnxscript"):
        pytest.importorskip(package, reason="without it the family is absent")
    from tidemill.sdk.pool import list_pool, show_pool
    from tidemill.sdk.pool_check import check_pool

    (done,) = check_pool(("backbone/timm/resnet18",))
    assert done.ok is None
    assert done.max_abs_dp is None
    assert done.message.startswith("not tried: The package 'timm' is needed")
    shown = show_pool("backbone/timm/resnet18")
    assert WHERE in shown["usable"]
    assert shown["params"] is None
    assert shown["example of weights"] == "timm/resnet18.a1_in1k"
    listed = next(row for row in list_pool("image") if row["family"] == "backbone")
    assert "timm" not in listed["architectures"]


def test_a_fit_without_timm_ends_before_it_begins_and_says_what_to_install(tmp_path: Path) -> None:
    for package in ("torch", "transformers", "onnxscript"):
        pytest.importorskip(package, reason="without it the family is absent")
    from tests.sdk.test_images import digits

    folder, photos = described(tmp_path / "net"), digits(tmp_path / "photos", 40)
    program = (
        "import sys; from importlib import util; from tidemill.models.pretrained import timm\n"
        "timm.find_spec = lambda name: None if name == 'timm' else util.find_spec(name)\n"
        "from tidemill.cli.main import run\n"
        f"code = run(['fit', {str(photos)!r}, '--weights', {folder!r}, '--trials', '1', '--cpus', '1', "
        f"'--workspace', {str(tmp_path / 'w')!r}, '--out', {str(tmp_path / 'x.tm')!r}])\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 2, done.stderr
    assert WHERE in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x.tm").exists()


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        ("RuntimeError('operator torchvision::nms does not exist')", "operator torchvision::nms does not exist"),
        ("ImportError()", "ImportError"),
    ],
)
def test_a_timm_that_can_t_be_loaded_is_told_with_its_reason_each_time(raised: str, told: str, tmp_path: Path) -> None:
    for name in ("timm", "torchvision"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise {raised}\n")
    program = (
        "from tidemill.core.errors import MissingExtraError\n"
        "from tidemill.models.pretrained.timm import load_timm\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        load_timm()\n"
        "    except MissingExtraError as error:\n"
        "        print(error)\n"
    )
    path = os.pathsep.join([str(tmp_path), *(entry for entry in sys.path if entry)])
    around = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=around)
    first, second = done.stdout.splitlines()
    assert f"installed, but can't be loaded: {told}. It needs the torchvision that was made for the torch" in first
    assert first == second


# ---------------------------------------------------------------------------------------------- where timm is here

NETS: dict[str, dict[str, Any]] = {
    "resnet18": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
    "mobilenetv3_small_050": {},
    "convnext_atto": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]},
    "vit_tiny_patch16_224": TINY_VIT,
    "eva02_tiny_patch14_224": TINY_VIT,
    "swin_tiny_patch4_window7_224": {
        "img_size": SIDE, "window_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_a_folder_that_timm_wrote_is_opened_as_timm_has_it_and_built_again(name: str, tmp_path: Path) -> None:
    net = saved(tmp_path, name, data={"input_size": [3, SIDE, SIDE]}, **NETS[name])
    import torch

    from tidemill.models.vision.nets.backbone import opened, rebuilt

    body, description = opened(str(tmp_path), 3, weights=True)
    x = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        wanted = net.forward_head(net.forward_features(x), pre_logits=True)
        assert torch.equal(_uncut(body, x), wanted)
        again = rebuilt(description, 3)
        again.load_state_dict(body.state_dict())
        assert torch.equal(_uncut(again, x), wanted)
    assert again.sight == body.sight == Sight.of(describe(tmp_path))
    assert opened(str(tmp_path), 3, weights=False)[1] == description


def _uncut(body: Any, x: Any) -> Any:
    """Features of images of which nothing is cut away."""
    return body.model(pixel_values=x).pooler_output


def test_tensors_of_timm_that_are_missing_or_of_another_shape_are_named(tmp_path: Path) -> None:
    saved(tmp_path, "resnet18", **NETS["resnet18"])
    from safetensors.torch import load_file, save_file

    from tidemill.models.pretrained.opening import PIXELS, open_folder

    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    kept = {name: tensor for name, tensor in tensors.items() if name != "layer1.0.conv2.weight"}
    save_file({**kept, "conv1.weight": tensors["conv1.weight"][:, :, :3, :3].contiguous()}, path)
    with pytest.raises(DataError, match=r"conv1\.weight' is .*'timm_model\.layer1\.0\.conv2\.weight' is missing"):
        open_folder(str(tmp_path), PIXELS, weights=True)


def test_a_name_that_timm_doesn_t_know_is_told(tmp_path: Path) -> None:
    timm_or_skip()
    from tidemill.models.pretrained.opening import PIXELS, open_folder

    folder = Path(described(tmp_path))
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "architecture": "no_such_net"}))
    with pytest.raises(DataError, match="can't be opened: The model architecture 'no_such_net' is not supported"):
        open_folder(str(folder), PIXELS, weights=False)


def test_pixels_become_what_timm_s_own_transform_makes_of_them(tmp_path: Path) -> None:
    timm = timm_or_skip()
    data = {
        "input_size": (3, SIDE, SIDE), "crop_pct": 0.8, "interpolation": "bicubic", "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.3, 0.4),
    }  # fmt: skip
    net = saved(tmp_path, "resnet18", data=data, **NETS["resnet18"])
    import torch
    from PIL import Image
    from tests.models.vision.made import CLASSES

    from tidemill.models.vision import pool
    from tidemill.models.vision._base import ImageProfile

    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    transform = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=data), is_training=False)
    profile = ImageProfile.of(np.zeros((20, 3, 40, 40), np.uint8), weights=(str(tmp_path),))
    family: Any = pool.families(["backbone"])["backbone"]
    config = pool.space(CLASSES, profile, ["backbone"]).default()
    ours = family._open(config, CLASSES, profile, weights=True)[0].eval()
    with torch.no_grad():
        wanted = net.forward_head(net.forward_features(transform(Image.fromarray(pixels))[None]), pre_logits=True)
        image = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32))[None]
        found = ours.body.features((image - ours.mean) / ours.std)
    assert float((found - wanted).abs().max()) < 1e-5
    assert side_of_images(str(tmp_path)) == 40


@pytest.mark.parametrize("way", ["bicubic", "bilinear", "nearest"])
def test_smaller_images_are_resized_in_the_graph_as_in_the_net(way: str, tmp_path: Path) -> None:
    saved(tmp_path, "resnet18", data={"input_size": (3, SIDE, SIDE), "crop_pct": 0.7, "interpolation": way},
          **NETS["resnet18"])  # fmt: skip
    from tests.models.vision.made import CLASSES, data

    from tidemill.bundle.graph import GraphBuilder
    from tidemill.bundle.latency import session
    from tidemill.models.training.budget import TrainBudget
    from tidemill.models.vision import pool

    profile, train, valid = data(60)
    profile = type(profile).from_json({**profile.to_json(), "weights": [str(tmp_path)]})
    config = pool.space(CLASSES, profile, ["backbone"]).default()
    net = pool.families(["backbone"])["backbone"].fit(config, CLASSES, profile, train, valid, TrainBudget(), 0)
    graph = GraphBuilder()
    graph.output(net.emit(graph, graph.input("x", np.float32, ["N", 3, 12, 12])), "scores", np.float32, ["N", 3])
    got = session(graph.model().SerializeToString()).run(None, {"x": valid.x.astype(np.float32)})[0]
    assert np.ptp(got, axis=0).min() > 0.05, "the answers differ from image to image"
    assert np.abs(got - net.predict(valid.x)).max() < 1e-4


@pytest.mark.parametrize("lora", [0, 8])
def test_a_vision_transformer_of_timm_is_tuned_kept_and_goes_on_as_a_folder(lora: int, tmp_path: Path) -> None:
    saved(tmp_path / "vit", "vit_tiny_patch16_224", data={"input_size": (3, SIDE, SIDE)}, **TINY_VIT)
    from tests.models.vision.made import CLASSES, data

    from tidemill.core.pack import pack, unpack
    from tidemill.models.fusion.own import write_encoder
    from tidemill.models.training.budget import TrainBudget
    from tidemill.models.vision import pool
    from tidemill.models.vision.nets.backbone import opened

    profile, train, valid = data(60)
    profile = type(profile).from_json({**profile.to_json(), "weights": [str(tmp_path / "vit")]})
    family = pool.families(["backbone"])["backbone"]
    tuned = {"family": "backbone", "backbone.mode": "tune", "backbone.lora": lora, "backbone.epochs": 2}
    config = pool.space(CLASSES, profile, ["backbone"]).complete(tuned)
    assert config["backbone.lora"] == lora
    net: Any = family.fit(config, CLASSES, profile, train, valid, TrainBudget(), 0)
    assert family.cost(config, CLASSES, profile) == net.cost
    began = opened(str(tmp_path / "vit"), 3, weights=True)[0].model.state_dict()
    moved = {n for n, v in net.net.body.model.state_dict().items() if not v.cpu().equal(began[n])}
    assert moved == ({n for n in began if n.endswith("qkv.weight")} if lora else moved)
    assert moved
    kept: Any = pool.restore(unpack(pack(net.checkpoint())), CLASSES)
    assert np.array_equal(kept.predict(valid.x), net.predict(valid.x))
    write_encoder(unpack(pack(net.checkpoint())), tmp_path / "on")
    assert is_of_timm(tmp_path / "on")
    on = opened(str(tmp_path / "on"), 3, weights=True)[0]
    assert on.sight == net.net.body.sight
    assert all(v.equal(net.net.body.model.state_dict()[n].cpu()) for n, v in on.model.state_dict().items())


@pytest.mark.slow
@pytest.mark.timeout(590)
def test_a_study_begins_from_weights_of_timm_and_its_bundle_takes_images_of_any_size(tmp_path: Path) -> None:
    saved(tmp_path / "net", "resnet18", data={"input_size": (3, SIDE, SIDE), "crop_pct": 0.875}, **NETS["resnet18"])
    from PIL import Image

    import tidemill as tm
    from tidemill.bundle.verify import verify

    rng = np.random.default_rng(0)
    for label, at in (("left", 0), ("right", 1)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(30):
            pixels = rng.integers(0, 120, (40 + i, 50, 3))
            pixels[:, 25 * at : 25 * at + 25] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / label / f"{i}.png")
    words: dict[str, Any] = {"families": ("backbone",), "trials": 2, "cpus": 1, "in_process": True, "test_size": 0.3}
    with tm.fit(tmp_path / "photos", workspace=tmp_path / "w", weights=(str(tmp_path / "net"),), **words) as study:
        states = [trial.state.value for trial in study.search.trials()]
        assert states == ["complete", "complete"]
        study.best.export(tmp_path / "out.tm")
    assert verify(tmp_path / "out.tm") == []
    bundle: Any = tm.load(tmp_path / "out.tm")
    wide = np.zeros((30, 300, 3), np.uint8)
    wide[:, :150] = 200
    assert list(bundle.predict([wide, np.ascontiguousarray(wide[:, ::-1])])) == ["left", "right"]
