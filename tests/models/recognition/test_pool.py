"""The pool of recognisers is data: it can be read without what the families need."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.models.recognition.made import READ, data

from tidemill.core.errors import NotFoundError, SpaceError
from tidemill.core.task import Task, TaskKind
from tidemill.models.recognition import pool
from tidemill.models.recognition._base import LineProfile
from tidemill.search.samplers.baseline import fit_into


def test_the_pool_is_listed_without_loading_torch() -> None:
    program = (
        "import sys; from tidemill.models.recognition import pool; pool.entries(); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_an_unknown_family_offers_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'crnn'"):
        pool.families(["crn"])


def test_every_listed_config_fits_the_space() -> None:
    pytest.importorskip("torch", reason="without it no family is there")
    space = pool.space(READ, data(20)[0])
    for given in (*pool.QUICK, *pool.PORTFOLIO):
        config = fit_into(space, given)
        assert config is not None
        assert all(config[k] == v for k, v in given.items() if not k.endswith(".weights"))


def test_other_questions_and_a_handful_of_lines_are_refused() -> None:
    pytest.importorskip("torch", reason="without it no family is there")
    with pytest.raises(SpaceError, match=r"No family can learn recognition from 4 lines\. Give more lines"):
        pool.space(READ, data(4)[0])
    with pytest.raises(SpaceError, match="No family can learn multiclass"):
        pool.space(Task(TaskKind.MULTICLASS, "y", ("a", "b", "c")), data(20)[0])


def test_a_profile_survives_json() -> None:
    profile, _, _ = data(20, weights=("w",))
    assert LineProfile.from_json(profile.to_json()) == profile
    assert profile.alphabet == "0123"
