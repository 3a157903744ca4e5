"""The device that is meant, and what it can do."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="devices are found with torch")

from tidemill.core.errors import OptionError
from tidemill.train.device import (
    arithmetic,
    computes_bf16,
    find_device,
    give_back,
    is_lost,
    is_out_of_memory,
    precision_on,
    resident_bytes,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("told", "there"),
    [
        ({"amx_bf16": True}, True),
        ({"avx512_bf16": True}, True),
        ({"avx2": True, "amx_bf16": False}, False),
        ({}, False),
    ],
)
def test_a_processor_has_instructions_for_bf16_where_it_tells_so(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, Any], there: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    assert computes_bf16(CPU) is there


def test_a_version_that_does_not_tell_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert computes_bf16(CPU) is False


def test_a_processor_computes_in_fp32_unless_something_else_is_asked_for() -> None:
    assert precision_on("auto", CPU) == "fp32"
    assert precision_on("bf16", CPU) == "bf16"
    with arithmetic("bf16", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.bfloat16
    with arithmetic("fp32", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.float32


@pytest.mark.parametrize("name", ["gpu", "cuda:first", "tpu:0"])
def test_a_name_that_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match="is not a device"):
        find_device(name)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library gives nothing back")
def test_memory_that_is_kept_for_later_use_is_given_back() -> None:
    many = [torch.ones(10_000) for _ in range(5_000)]  # 200 MB in pieces that the C library keeps
    rest = many[::100]
    del many
    kept = resident_bytes()
    give_back(CPU)
    assert resident_bytes() < kept - 100_000_000
    assert all(float(one[0]) == 1 for one in rest)


@pytest.mark.parametrize(
    ("words", "lost", "full"),
    [
        ("CUDA error: device-side assert triggered", True, False),
        ("CUDA error: an illegal memory access was encountered", True, False),
        ("CUDA error: uncorrectable ECC error encountered", True, False),
        ("NCCL error in: ProcessGroupNCCL.cpp:1970, unhandled system error", True, False),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", True, False),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", False, True),
        ("CUDA error: out of memory", True, True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True, True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True, True),
        ("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)", False, False),
    ],
)
def test_a_device_that_failed_is_told_from_one_that_is_full(words: str, lost: bool, full: bool) -> None:
    assert is_lost(RuntimeError(words)) is lost
    assert is_out_of_memory(RuntimeError(words)) is full, "which is asked first"
    assert not is_lost(ValueError(words))
