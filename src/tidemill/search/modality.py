"""What a study's ledger entry is restored with; by name, so that a study of tables loads nothing of images.

A further modality is one line here, a `Material` beside it, and a folder of families in `tidemill.models`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from tidemill.bundle.parts import EncoderPart, ModelPart
from tidemill.core.errors import NotFoundError
from tidemill.core.task import Task

SETTING = "modality"
"""Key of a study's settings under which its modality stands; without it the study is about a table."""
TABLE, IMAGE, TEXT, LINE, FUSED = "table", "image", "text", "line", "fused"


@dataclass(frozen=True)
class Modality:
    """Where a modality's parts are.

    Parameters
    ----------
    name : str
        Its name.
    encoder : str
        ``"module:Class"`` with a class method ``restore(state)``.
    part : str
        ``"module:function"`` that restores a trained model from its state and the task.
    """

    name: str
    encoder: str
    part: str

    def restore_encoder(self, state: Any) -> EncoderPart:
        """Rebuild the encoder of a study."""
        found: EncoderPart = _named(self.encoder).restore(state)
        return found

    def restore_part(self, state: dict[str, Any], task: Task) -> ModelPart:
        """Rebuild one trained model."""
        found: ModelPart = _named(self.part)(state, task)
        return found


_KNOWN = {
    TABLE: Modality(TABLE, "tidemill.models.tabular.encode:Encoder", "tidemill.models.tabular.pipeline:restore"),
    IMAGE: Modality(IMAGE, "tidemill.bundle.images.encoder:ImageEncoder", "tidemill.models.vision.pool:restore"),
    TEXT: Modality(TEXT, "tidemill.bundle.texts.encoder:TextEncoder", "tidemill.models.text.pool:restore"),
    FUSED: Modality(FUSED, "tidemill.models.fusion.encoder:FusedEncoder", "tidemill.models.tabular.pipeline:restore"),
    LINE: Modality(LINE, "tidemill.bundle.lines.encoder:LineEncoder", "tidemill.models.recognition.pool:restore"),
}


def modality_of(settings: Mapping[str, Any]) -> Modality:
    """The modality that a study's settings name.

    Examples
    --------
    >>> modality_of({}).name, modality_of({"modality": "image"}).name
    ('table', 'image')
    """
    name = str(settings.get(SETTING, TABLE))
    if name not in _KNOWN:
        raise NotFoundError.of("modality", name, _KNOWN, hint="The study was made by a newer Tidemill.")
    return _KNOWN[name]


def _named(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)
