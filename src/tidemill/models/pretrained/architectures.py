"""The architectures of transformers that encoders are known to work in here, as data. Nothing here loads torch.

Any other that ``AutoModel`` opens may be tried with ``--weights``; of these ``tidemill pool check`` proves that they
are trained, exported, and answer as their graph does. One more is one more entry of a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tidemill.core.errors import NotFoundError

IMAGE, TEXT = "image", "text"
_SOURCE = "https://github.com/huggingface/transformers/tree/main/src/transformers/models/{}"


@dataclass(frozen=True)
class Architecture:
    """What is known of a kind of net without loading it.

    Parameters
    ----------
    name : str
        What people call it.
    modality : str
        `IMAGE` or `TEXT`: what it takes.
    kind : str
        The ``model_type`` of its ``config.json``.
    published : str
        Trained weights of it, as they are named on the Hugging Face hub: an example.
    tiny : mapping
        Sizes of the description of a net that is checked within seconds.
    usual : mapping
        Sizes of the usual net, where transformers has others as defaults.
    side : int
        Of the images that the usual net was made for; 0 for texts.
    low_rank : bool
        Its attention has the maps that additions of low rank go to.
    refused : str
        Why it can't be used; empty where it can.
    licence : str
        Of its code; weights have their own.
    """

    name: str
    modality: str
    kind: str
    published: str
    tiny: Mapping[str, Any]
    usual: Mapping[str, Any] = field(default_factory=dict)
    side: int = 0
    low_rank: bool = False
    refused: str = ""
    licence: str = "Apache-2.0"

    @property
    def source(self) -> str:
        """Where its code is."""
        return _SOURCE.format(self.kind.replace("-", "_"))


_TOKENS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
_VIT = {**_TOKENS, "intermediate_size": 32}
_DINO = {**_TOKENS, "mlp_ratio": 2}
_WINDOWS = {
    "image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4,
}  # fmt: skip
_TWO_STAGES = {"hidden_sizes": [16, 32], "depths": [1, 1], "image_size": 32}
_THIN = {"depth_multiplier": 0.125, "image_size": 32}
_FOUR_STAGES = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "image_size": 32}


def _image(name: str, kind: str, published: str, tiny: Mapping[str, Any], **more: Any) -> Architecture:
    return Architecture(name, IMAGE, kind, published, tiny, **{"side": 224, **more})


IMAGES: tuple[Architecture, ...] = (
    _image("ViT", "vit", "google/vit-base-patch16-224", _VIT, low_rank=True),
    _image("DeiT", "deit", "facebook/deit-base-distilled-patch16-224", _VIT, low_rank=True),
    _image("BEiT", "beit", "microsoft/beit-base-patch16-224", _VIT, low_rank=True),
    _image("DINOv2", "dinov2", "facebook/dinov2-base", _DINO, low_rank=True),
    _image(
        "DINOv2 with registers", "dinov2_with_registers", "facebook/dinov2-with-registers-base",
        {**_DINO, "num_register_tokens": 2}, usual={"patch_size": 14}, low_rank=True,
    ),
    _image("DINOv3", "dinov3_vit", "facebook/dinov3-vits16-pretrain-lvd1689m", _VIT, low_rank=True),
    _image("SwinV2", "swinv2", "microsoft/swinv2-tiny-patch4-window8-256", _WINDOWS, side=256, low_rank=True,
           usual={"image_size": 256, "window_size": 8}),
    _image(
        "PVT v2", "pvt_v2", "OpenGVLab/pvt_v2_b0",
        {**_FOUR_STAGES, "num_attention_heads": [1, 1, 2, 2], "mlp_ratios": [2, 2, 2, 2]},
        low_rank=True,
    ),
    _image("ResNet", "resnet", "microsoft/resnet-50", {**_TWO_STAGES, "embedding_size": 16, "layer_type": "basic"}),
    _image("RegNet", "regnet", "facebook/regnet-y-040", {**_TWO_STAGES, "embedding_size": 16, "groups_width": 8}),
    _image("ConvNeXt", "convnext", "facebook/convnext-tiny-224", {**_TWO_STAGES, "num_stages": 2}),
    _image("ConvNeXt V2", "convnextv2", "facebook/convnextv2-tiny-1k-224", {**_TWO_STAGES, "num_stages": 2}),
    _image("MobileNet V1", "mobilenet_v1", "google/mobilenet_v1_1.0_224", _THIN),
    _image("MobileNet V2", "mobilenet_v2", "google/mobilenet_v2_1.0_224", _THIN),
    _image(
        "MobileViT", "mobilevit", "apple/mobilevit-small",
        {"image_size": 64, "hidden_sizes": [8, 8, 8], "neck_hidden_sizes": [4, 4, 4, 8, 8, 8, 16],
         "num_attention_heads": 2},
        side=256, low_rank=True,
    ),
    _image("PoolFormer", "poolformer", "sail/poolformer_s12", _FOUR_STAGES),
    _image(
        "Swin", "swin", "microsoft/swin-tiny-patch4-window7-224", _WINDOWS,
        refused="PyTorch's exporter can't write its windows; take SwinV2",
    ),
)  # fmt: skip
"""Backbones for images."""

_LAYERS = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 32,
    "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}


def _text(name: str, kind: str, published: str, **more: Any) -> Architecture:
    return Architecture(name, TEXT, kind, published, **{"tiny": _LAYERS, "low_rank": True, **more})


TEXTS: tuple[Architecture, ...] = (
    _text("MiniLM", "bert", "sentence-transformers/all-MiniLM-L6-v2",
          usual={"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}),
    _text("BERT", "bert", "google-bert/bert-base-uncased"),
    _text(
        "DistilBERT", "distilbert", "distilbert/distilbert-base-uncased",
        tiny={"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "vocab_size": 32,
              "max_position_embeddings": 64, "pad_token_id": 0},
    ),
    _text("RoBERTa", "roberta", "FacebookAI/roberta-base",
          usual={"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}),
    _text("ELECTRA", "electra", "google/electra-small-discriminator"),
    _text("ModernBERT", "modernbert", "answerdotai/ModernBERT-base"),
    _text("DeBERTa-v2", "deberta-v2", "microsoft/deberta-v3-base", usual={**_BASE, "relative_attention": True}),
    _text("MPNet", "mpnet", "sentence-transformers/all-mpnet-base-v2"),
    _text("ALBERT", "albert", "albert/albert-base-v2", usual=_BASE),
)  # fmt: skip
"""Encoders of texts."""


def of_kind(kind: str) -> Architecture | None:
    """The first architecture of a ``model_type``; None for one that nobody has checked.

    Examples
    --------
    >>> of_kind("resnet").name, of_kind("mamba") is None
    ('ResNet', True)
    """
    return next((each for each in (*IMAGES, *TEXTS) if each.kind == kind), None)


def architecture(name: str, among: tuple[Architecture, ...]) -> Architecture:
    """The architecture of a name, however it is spelled.

    Raises
    ------
    NotFoundError
        Where there is none; it offers the nearest.

    Examples
    --------
    >>> architecture("convnext-v2", IMAGES).kind
    'convnextv2'
    """
    known = {_plain(each.name): each for each in among}
    known |= {_plain(each.kind): each for each in reversed(among)} | known
    if _plain(name) not in known:
        raise NotFoundError.of("architecture", name, [each.name for each in among])
    return known[_plain(name)]


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
