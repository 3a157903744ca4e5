"""The architectures of transformers and timm that encoders are known to work in, as data. Nothing here loads torch.

Any other that ``AutoModel`` opens may be tried with ``--weights``; of these ``tidemill pool check`` proves that they
are trained, exported, and answer as their graph does. One more is one more entry of a table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tidemill.core.errors import MissingExtraError, NotFoundError
from tidemill.models.pretrained.folders import TIMM
from tidemill.models.pretrained.timm import refuse_without_timm

IMAGE, TEXT = "image", "text"
_SOURCE = "https://github.com/huggingface/transformers/tree/main/src/transformers/models/{}"
_SOURCE_OF_TIMM = "https://github.com/huggingface/pytorch-image-models"


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
        The ``model_type`` of its ``config.json``; of all nets of timm it is `TIMM`.
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
        return _SOURCE_OF_TIMM if self.kind == TIMM else _SOURCE.format(self.kind.replace("-", "_"))

    @property
    def absent(self) -> str | None:
        """Why it can't be used here, as far as that is known without loading anything; None where nothing is known."""
        if self.kind != TIMM:
            return None
        try:
            refuse_without_timm()
        except MissingExtraError as error:
            return str(error)
        return None


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
    # On smaller images its maps have one place, of which nearly all that a window sees is padding.
    _image("MobileNet V1", "mobilenet_v1", "google/mobilenet_v1_1.0_224", {**_THIN, "image_size": 64}),
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
"""Backbones for images, of transformers."""

_CUT = {"crop_pct": 0.875, "interpolation": "bicubic"}
_TINY_VIT: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
_TINY_STAGES: dict[str, Any] = {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}


def _timm(
    usual: str, tiny: str = "", tag: str = "", side: int = 224, low_rank: bool = False, seen: int = 32, **args: Any
) -> Architecture:
    """One of timm: the usual net by its name there, and a small one by a name (else the same) and its arguments."""
    cfg = {**_CUT, "input_size": [3, seen, seen]}
    described = {"architecture": tiny or usual, "model_args": args, "pretrained_cfg": cfg}
    named = {"usual": {"architecture": usual}, "side": side, "low_rank": low_rank}
    return _image(f"timm/{usual}", TIMM, f"timm/{usual}.{tag}", described, **named)


OF_TIMM: tuple[Architecture, ...] = (
    _timm("resnet18", tag="a1_in1k", layers=[1, 1, 1, 1], channels=[8, 8, 16, 16]),
    _timm("densenet121", tag="ra_in1k", block_config=[1, 1, 1, 1], growth_rate=8),
    _timm("repvgg_a0", tag="rvgg_in1k"),
    _timm("regnety_002", tag="pycls_in1k"),
    _timm("efficientnet_b0", "test_efficientnet", tag="ra_in1k"),
    _timm("mobilenetv3_small_100", "mobilenetv3_small_050", tag="lamb_in1k"),
    _timm("mobilenetv4_conv_small", "mobilenetv4_conv_small_035", tag="e2400_r224_in1k"),
    _timm("ghostnet_100", "ghostnet_050", tag="in1k"),
    _timm("convnext_atto", tag="d2_in1k", **_TINY_STAGES),
    _timm("edgenext_xx_small", tag="in1k", side=256, low_rank=True, heads=[1, 1, 1, 1], **_TINY_STAGES),
    _timm("fastvit_t8", tag="apple_in1k", side=256, layers=[1, 1, 1, 1], embed_dims=[8, 8, 16, 16]),
    _timm("vit_tiny_patch16_224", tag="augreg_in21k_ft_in1k", low_rank=True, **_TINY_VIT),
    _timm("deit3_small_patch16_224", tag="fb_in1k", low_rank=True, init_values=1.0, **_TINY_VIT),
    _timm("eva02_tiny_patch14_224", tag="mim_in22k", low_rank=True, **_TINY_VIT),
    _timm("mobilevit_xs", "mobilevit_xxs", tag="cvnets_in1k", side=256, low_rank=True, seen=64),
    _timm("swin_tiny_patch4_window7_224", tag="ms_in1k", low_rank=True, img_size=32, window_size=4, embed_dim=8,
          depths=[1, 1], num_heads=[1, 2]),
    _timm("efficientformerv2_s0", tag="snap_dist_in1k", seen=64, img_size=64),
    _timm("starnet_s1", tag="in1k", depths=[1, 1, 1, 1], base_dim=8),
    _timm("tiny_vit_5m_224", tag="dist_in22k", low_rank=True, seen=64),
    _timm("levit_128s", tag="fb_dist_in1k", seen=224),
    _timm("caformer_s18", tag="sail_in1k", low_rank=True),
)  # fmt: skip
"""The same of timm, which is an extra of its own."""

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


def of_description(described: Mapping[str, Any]) -> Architecture | None:
    """The first architecture of a description's ``model_type``; None for one that nobody has checked.

    Nets of timm are told apart by the word that their names begin with.

    Examples
    --------
    >>> of_description({"model_type": "resnet"}).name, of_description({"model_type": "mamba"}) is None
    ('ResNet', True)
    >>> of_description({"model_type": "timm_wrapper", "architecture": "vit_base_patch32_384"}).name
    'timm/vit_tiny_patch16_224'
    """
    kind = described.get("model_type")
    if kind != TIMM:
        return next((each for each in (*IMAGES, *TEXTS) if each.kind == kind), None)
    word = _first_word(described.get("architecture"))
    return next((each for each in OF_TIMM if _first_word(each.usual["architecture"]) == word), None)


def _first_word(name: object) -> str:
    return re.split(r"[^a-z]", str(name), maxsplit=1)[0]


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
