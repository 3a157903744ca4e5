"""Hardware by name, from a file, and measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tidemill.core.errors import DataError, NotFoundError, OptionError, TrialMemoryError
from tidemill.train.planner.hardware import PRESETS, Hardware, detect, preset, read_hardware


def test_counts_stand_before_a_name() -> None:
    assert (preset("h100").nodes, preset("h100").devices) == (1, 1)
    assert (preset("8xh100").nodes, preset("8xH100").devices) == (1, 8)
    assert preset("4x8xh100").world == 32
    with pytest.raises(NotFoundError, match="Did you mean 'h100'"):
        preset("8xh101")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_json(name: str) -> None:
    assert Hardware.from_json(PRESETS[name].to_json()) == PRESETS[name]


def test_a_file_may_begin_with_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "ours.yaml"
    path.write_text("preset: a100-80\nnodes: 2\ndevices: 4\nmemory_bytes: 40GB\nnet_rate: 1e9\n")
    found = read_hardware(str(path))
    assert (found.name, found.world, found.memory_bytes, found.net_rate) == ("ours", 8, 40 * 10**9, 1e9)


@pytest.mark.parametrize(
    ("text", "error", "word"),
    [
        ("memory_bytes: 1GB\n", OptionError, "lacks: kind, flops, memory_rate"),
        ("preset: h100\ndevice: 4\n", NotFoundError, "Did you mean 'devices'"),
        ("preset: h100\ndevices: many\n", OptionError, "can't be read"),
        ("preset: h100\ndevices: 0\n", OptionError, "must be positive: devices"),
        ("- 1\n", DataError, "mapping"),
        ("a: [\n", DataError, "can't be read"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, error: type[Exception], word: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(error, match=word):
        read_hardware(str(path))
    with pytest.raises(DataError, match="can't be read"):
        read_hardware(str(tmp_path / "absent.yaml"))


def test_this_machine_is_measured() -> None:
    pytest.importorskip("torch", reason="deep training needs the extra 'deep'")
    found = detect()
    assert found.memory_bytes > 10**8
    assert found.rate("fp32") > 1e8
    assert found.memory_rate > 1e8
    assert Hardware.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("name", "precision"), [("h100", "bf16"), ("a100-40", "bf16"), ("t4", "fp32"), ("v100-32", "fp32"), ("cpu", "fp32")]
)
def test_a_gpu_without_instructions_for_bf16_computes_in_fp32_unless_asked(name: str, precision: str) -> None:
    assert preset(name).precision("auto") == precision
    assert preset(name).precision("fp16") == "fp16"
    assert preset(name).precision("bf16") == "bf16"


def test_described_hardware_computes_in_bf16_where_it_has_a_rate_for_it(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text("kind: cuda\nmemory_bytes: 16GB\nmemory_rate: 3e11\nflops: {fp32: 8e12, fp16: 6e13}\n")
    assert read_hardware(str(path)).precision("auto") == "fp32"
    path.write_text("kind: cuda\nmemory_bytes: 16GB\nmemory_rate: 3e11\nflops: {fp32: 8e12, bf16: 6e13}\n")
    assert read_hardware(str(path)).precision("auto") == "bf16"


@pytest.mark.parametrize("able", [True, False])
def test_a_gpu_is_measured_in_what_it_computes_and_planned_as_it_is_trained(
    monkeypatch: pytest.MonkeyPatch, able: bool
) -> None:
    torch = pytest.importorskip("torch", reason="deep training needs the extra 'deep'")
    from tidemill.train.device import precision_on
    from tidemill.train.planner import hardware

    asked = []

    def rate(device: Any, dtype: Any) -> float:
        asked.append(dtype)
        return {torch.float32: 8e12, torch.float16: 6e13, torch.bfloat16: 7e13}[dtype]

    monkeypatch.setattr(hardware, "_matmul_rate", rate)
    monkeypatch.setattr(hardware, "_copy_rate", lambda device: 3e11)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (15 * 10**9, 16 * 10**9))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: able or including_emulation)
    found = detect()
    assert found.precision("auto") == precision_on("auto", torch.device("cuda", 0)) == ("bf16" if able else "fp32")
    assert (torch.bfloat16 in asked) is able
    assert found.rate("fp16") == (7e13 if able else 6e13)
    assert found.rate("bf16") == (7e13 if able else 8e12), "emulated it is no quicker than fp32"


def test_a_full_device_is_measured_with_less(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="deep training needs the extra 'deep'")
    room, empty_like = 2**20, torch.empty_like

    def little(tensor: Any) -> Any:
        if tensor.numel() > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1024.00 MiB")
        return empty_like(tensor)

    monkeypatch.setattr(torch, "empty_like", little)
    assert detect().memory_rate > 1e8
    room = 1000
    with pytest.raises(TrialMemoryError, match="The device cpu is full"):
        detect()
