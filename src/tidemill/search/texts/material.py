"""Texts as what a search learns from. Nothing here loads torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from tidemill.data.texts.packed import write_texts
from tidemill.models.text import pool
from tidemill.search.heldout.material import HeldOutMaterial, Pool
from tidemill.search.modality import TEXT
from tidemill.search.settings import SearchSettings
from tidemill.search.texts.evaluate import CALL

_MEMBERS = 3
"""So many encoders may stand in one bundle, where the objective names no bound."""


@dataclass(frozen=True)
class TextMaterial(HeldOutMaterial):
    """Training texts, objects of shape (n,), and all that `HeldOutMaterial` holds.

    The encoder is a `TextEncoder`, the profile a `TextProfile`; columns are the numbers of characters and words.
    """

    modality: ClassVar[str] = TEXT
    call: ClassVar[str] = CALL
    kinds: ClassVar[str] = "An encoder of texts is wanted; say --family encoder or sentence, or leave --weights out."

    @property
    def pool(self) -> Pool:
        """Families for texts."""
        return pool

    def settled(self, settings: SearchSettings) -> SearchSettings:
        """Choose the parts as usual; an ensemble may hold some encoders, whatever their size."""
        sizes = [sum(p.stat().st_size for p in Path(w).glob("*.safetensors")) for w in self.profile.weights]
        most = max(settings.ensemble_size_bytes, _MEMBERS * max(sizes, default=0))
        return replace(super().settled(settings), ensemble_size_bytes=most)

    def files(self, folder: Path) -> dict[str, str]:
        """Write the texts as plain arrays."""
        out = {"x": write_texts(self.x, folder / "x")}
        if self.x_test is not None:
            out["x_test"] = write_texts(self.x_test, folder / "x_test")
        return out
