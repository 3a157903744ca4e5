"""The pool of texts is data: it can be read without what the families need."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.models.text.made import CLASSES

from tidemill.core.errors import NotFoundError, SpaceError
from tidemill.models.text import pool
from tidemill.models.text._base import TextProfile
from tidemill.search.samplers.baseline import fit_into

MANY = TextProfile(500, 100.0, 150)


def test_the_pool_is_listed_without_loading_torch_or_sklearn() -> None:
    program = (
        "import sys; from tidemill.models.text import pool; pool.entries(); "
        "assert not {'torch', 'transformers', 'sklearn'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_without_weights_pieces_of_text_are_what_there_is() -> None:
    assert next(p.name for p in pool.space(CLASSES, MANY)) == "family"
    first = fit_into(pool.space(CLASSES, MANY), pool.QUICK[0])
    assert first is not None
    assert first["family"] == "ngrams"
    with pytest.raises(SpaceError, match="No family can learn multiclass from 3 texts"):
        pool.space(CLASSES, TextProfile(3, 10.0, 10))


def test_an_unknown_family_offers_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'ngrams'"):
        pool.families(["ngram"])


def test_every_listed_config_fits_the_space_of_somebody_with_weights() -> None:
    for package in ("torch", "transformers", "tokenizers", "onnxscript"):
        pytest.importorskip(package, reason="without the extra `text` some families are absent")
    space = pool.space(CLASSES, TextProfile(500, 100.0, 150, ("encoder",)))
    for given in (*pool.QUICK, *pool.PORTFOLIO):
        config = fit_into(space, given)
        assert config is not None
        assert all(config[k] == v for k, v in given.items())
    with pytest.raises(SpaceError, match="Name the folder of a trained encoder with --weights"):
        pool.space(CLASSES, MANY, ["encoder"])


def test_a_profile_survives_json() -> None:
    profile = TextProfile.of(["a", "longer text"], weights=("w",))
    assert TextProfile.from_json(profile.to_json()) == profile
    assert TextProfile.of([]).rows == 0


def test_an_encoder_is_looked_through_then_tuned_then_adapted() -> None:
    first = [(c["family"], c.get("encoder.lora", 0)) for c in pool.PORTFOLIO[:3]]
    assert first == [("sentence", 0), ("encoder", 0), ("encoder", 8)]
