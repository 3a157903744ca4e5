"""The pool is data: it can be read without what the families need."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from tests.models.vision.made import CLASSES

from tidemill.core.errors import NotFoundError, SpaceError
from tidemill.models.registry import Entry
from tidemill.models.vision import pool
from tidemill.models.vision._base import ImageProfile


def test_the_pool_is_listed_without_loading_torch() -> None:
    program = "import sys; from tidemill.models.vision import pool; pool.entries(); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_an_entry_says_what_is_absent_and_how_to_get_it() -> None:
    entry = Entry("x", "nowhere:X", packages=("no_such_package", "neither_this"))
    assert entry.absent is not None
    assert "'no_such_package', 'neither_this' are not installed" in entry.absent
    assert "tidemill[deep]" in entry.absent


def test_an_unknown_family_offers_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'resnet9'"):
        pool.families(["resnet_9"])


def test_every_listed_config_fits_the_space_or_is_left_out() -> None:
    pytest.importorskip("torch", reason="without it no family is there")
    from tidemill.search.samplers.baseline import fit_into

    space = pool.space(CLASSES, ImageProfile.of(np.zeros((50, 3, 8, 8), np.uint8)))
    known = [fit_into(space, c) for c in (*pool.QUICK, *pool.PORTFOLIO)]
    assert known[0] is not None
    assert sum(c is not None for c in known) >= 6
    for given, config in zip((*pool.QUICK, *pool.PORTFOLIO), known, strict=True):
        if config is not None:
            assert all(config[k] == v for k, v in given.items() if k in config)


def test_a_handful_of_images_is_not_enough() -> None:
    pytest.importorskip("torch", reason="without it no family is there")
    with pytest.raises(SpaceError, match=r"No family can learn multiclass from 3 images\. Give more images"):
        pool.space(CLASSES, ImageProfile.of(np.zeros((3, 3, 8, 8), np.uint8)))
