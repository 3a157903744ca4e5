"""Trained weights from a file: read without running anything, put into a net by name.

Only ``safetensors`` is read: eight bytes of length, a JSON header, and numbers. No pickle.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.core.trial import Config
from tidemill.models.pretrained.folders import (
    CONFIG,
    TENSORS,
    fetched,
    has_vocabulary,
    has_weights,
    is_described,
    is_hub_name,
    is_of_timm,
)
from tidemill.models.pretrained.timm import refuse_without_timm

if TYPE_CHECKING:
    from torch import nn

FILE = "model.safetensors"
WANTED = (CONFIG, "preprocessor_config.json", TENSORS)
"""Files of a backbone that are fetched."""
_MOST_HEADER = 100_000_000
_ORIGIN, _BODY = "tidemill", "body."
NOT_BEGUN_FROM = ("probe", "discriminant")
"""Families whose nets are no beginning for others: they learn a head on what is not theirs."""
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U8": "|u1",
    "BOOL": "|b1",
}  # fmt: skip

Tensors = dict[str, NDArray[Any]]


def weights_file(place: str | Path) -> Path:
    """The file of a folder with weights, or the file itself.

    Raises
    ------
    NotFoundError
        Where there are no weights; it says what to do.
    """
    path = Path(place).expanduser()
    found = path / FILE if path.is_dir() else path
    if not found.is_file():
        raise NotFoundError(
            f"There are no weights at {str(found)!r}.",
            hint="Give a folder with model.safetensors, such a file, a name of the Hugging Face hub such as "
            "facebook/dinov2-small, or the name of a study of images.",
        )
    if found.suffix != ".safetensors":
        raise DataError(
            "Only weights in the form of safetensors are read: other forms can run code when they are opened.",
            where=str(found),
        )
    return found


def find_weights(place: str) -> str:
    """Find the folder of a backbone that is named as on the Hugging Face hub; what is a place here stays as it is.

    The cache of the hub is looked at first, so that nothing is fetched twice.

    Raises
    ------
    NotFoundError
        Where it can't be fetched.
    DataError
        Where the hub has no weights of it in the form of safetensors.
    """
    if not is_hub_name(place):
        return place
    folder = fetched(place, WANTED, lambda found: is_described(found) and has_weights(found), "backbone")
    if not (is_described(folder) and has_weights(folder)):
        raise DataError(
            "The hub has no config.json with weights in the form of safetensors under this name; other forms can run "
            "code when they are opened.",
            where=place,
            hint="Name another, or convert it: AutoModel.from_pretrained(NAME).save_pretrained(FOLDER).",
        )
    return str(folder)


def read_header(path: Path) -> dict[str, Any]:
    """Names, types, shapes and places of a file's tensors.

    Raises
    ------
    DataError
        Where the file is not what it should be.
    """
    return _read_header(path)[0]


def read_metadata(path: Path) -> dict[str, str]:
    """What the header says beside the tensors.

    Raises
    ------
    DataError
        Where the file is not what it should be.
    """
    return _read_header(path)[1]


def _read_header(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors, and what else is said of them."""
    try:
        with path.open("rb") as file:
            size = struct.unpack("<Q", file.read(8))[0]
            if size > min(_MOST_HEADER, path.stat().st_size):
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(size))
        more = header.pop("__metadata__", None) or {}
        told = {str(name): str(value) for name, value in more.items()}
        return {str(name): {**entry, "base": 8 + size} for name, entry in header.items()}, told
    except (OSError, ValueError, struct.error, AttributeError, TypeError) as error:
        raise DataError(f"The weights can't be read ({error}).", where=str(path)) from error


def read_safetensors(path: Path) -> Tensors:
    """Read all tensors of a file by name; ``BF16`` comes as float32.

    Raises
    ------
    DataError
        Where the file is damaged.
    """
    header = read_header(path)
    data = path.read_bytes()
    return {name: _tensor(name, entry, data, path) for name, entry in header.items()}


def _tensor(name: str, entry: Mapping[str, Any], data: bytes, path: Path) -> NDArray[Any]:
    try:
        start, stop = (int(v) + entry["base"] for v in entry["data_offsets"])
        shape = [int(n) for n in entry["shape"]]
        raw = data[start:stop]
        if entry["dtype"] == "BF16":  # the upper half of a float32
            wide = np.frombuffer(raw, dtype="<u2").astype(np.uint32) << 16
            return wide.view(np.float32).reshape(shape)
        return np.array(np.frombuffer(raw, dtype=_DTYPES[entry["dtype"]])).reshape(shape)
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"The tensor {name!r} of the weights can't be read ({error!r}).", where=str(path)) from error


def write_safetensors(
    tensors: Mapping[str, NDArray[Any]], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors by name, so that other programs can read what was trained here; whole, or not at all."""
    names = {dtype: name for name, dtype in _DTYPES.items()}
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    place = 0
    for name, values in tensors.items():
        header[name] = {
            "dtype": names[values.dtype.newbyteorder("<").str if values.dtype.itemsize > 1 else values.dtype.str],
            "shape": list(values.shape),
            "data_offsets": [place, place + values.nbytes],
        }
        place += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    whole = struct.pack("<Q", len(text)) + text + b"".join(v.tobytes() for v in tensors.values())
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(whole)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError(f"The weights can't be written ({error.strerror or error}).", where=str(path)) from error


def fill_by_name(net: nn.Module, tensors: Mapping[str, NDArray[Any]], where: str, may_differ: Sequence[str]) -> None:
    """Put weights into a net by name.

    Parameters
    ----------
    net : nn.Module
        Whose tensors are replaced.
    tensors : mapping
        Weights by name.
    where : str
        Where they come from, for messages.
    may_differ : sequence of str
        Beginnings of names that may be absent or of another shape, and then stay as they are: the head.

    Raises
    ------
    DataError
        Naming the tensors that are missing or whose shapes don't fit.
    """
    import torch

    wanted = net.state_dict()
    wrong = []
    taken = {}
    for name, tensor in wanted.items():
        if name.endswith("num_batches_tracked"):
            continue
        given = tensors.get(name)
        if given is not None and tuple(given.shape) == tuple(tensor.shape):
            taken[name] = torch.from_numpy(np.asarray(given)).to(tensor.dtype)
        elif not name.startswith(tuple(may_differ)):
            shape = tuple(tensor.shape)
            wrong.append(f"{name!r} is missing" if given is None else f"{name!r} is {given.shape}, not {shape}")
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise DataError(f"The weights don't fit the net: {'; '.join(wrong[:5])}{more}.", where=where)
    net.load_state_dict(taken, strict=False)


def resnet_layout(tensors: Mapping[str, NDArray[Any]], where: str) -> tuple[int, int]:
    """Width and blocks of a stage of a residual net's weights.

    Raises
    ------
    DataError
        Where they are those of something else.
    """
    depth = len({name.split(".")[1] for name in tensors if name.startswith("layer1.")})
    if "conv1.weight" not in tensors or depth < 1:
        raise DataError("These are not the weights of a residual net for small images.", where=where)
    return int(tensors["conv1.weight"].shape[0]), depth


def looks_like_resnet(place: str, channels: int) -> bool:
    """Say whether weights are those of a residual net for small images of so many channels; only the header is read."""
    if is_described(place) and not (Path(place).expanduser() / FILE).is_file():
        return False  # one of transformers, whose weights come in parts
    header = read_header(weights_file(place))
    first = header.get("conv1.weight", {}).get("shape", [])
    own = {"conv1.weight", "layer1.0.conv1.weight", "layer3.0.conv2.weight"} <= set(header)
    return own and len(first) == 4 and first[1] == channels and first[2] == 3 and "layer4.0.conv1.weight" not in header


@dataclass(frozen=True)
class Origin:
    """Where weights that Tidemill trained come from; it stands in their file.

    Parameters
    ----------
    family : str
        That built the net.
    config : dict
        Its config, which says the shapes.
    channels : int
        Of the images that it saw.
    alphabet : str
        The characters that it can write, where it reads lines.
    height, width : int
        Of the images that it saw; 0 where nobody wrote them down.
    mean, std : tuple of float
        Of their pixels by channel, in units of 0 to 255; empty where nobody wrote them down.
    """

    family: str
    config: dict[str, Any]
    channels: int
    alphabet: str = ""
    height: int = 0
    width: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def origin_of(place: str | Path) -> Origin | None:
    """Read where weights come from; None for those of others, and for folders of transformers.

    Raises
    ------
    NotFoundError, DataError
        As `weights_file` and `read_header`.
    """
    if (Path(place).expanduser() / "config.json").is_file():
        return None
    path = weights_file(place)
    told = _read_header(path)[1].get(_ORIGIN)
    if told is None:
        return None
    try:
        found = json.loads(told)
        alphabet = str(found.get("alphabet", ""))
        return Origin(
            str(found["family"]), dict(found["config"]), int(found["channels"]), alphabet,
            int(found.get("height", 0)), int(found.get("width", 0)),
            tuple(map(float, found.get("mean", ()))), tuple(map(float, found.get("std", ()))),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"The weights don't say where they come from ({error!r}).", where=str(path)) from error


def laid_like(config: Config, family: str, layout: Sequence[str]) -> Config:
    """A config with the shapes of the weights that it names, which it names no more; as it is where it names none.

    Parameters
    ----------
    config : Config
        Of a net of ``family``.
    family : str
        Name of the family, with which its parameters begin.
    layout : sequence of str
        Parameters that decide the shapes of its tensors, without the family's name.

    Raises
    ------
    DataError
        Where the weights don't say one of them.
    """
    named = str(config.get(f"{family}.weights", ""))
    origin = origin_of(named) if named else None
    if origin is None:
        return config
    shapes = {f"{family}.{p}": origin.config.get(f"{family}.{p}") for p in layout}
    lost = [name for name, value in shapes.items() if value is None]
    if lost:
        raise DataError(f"The weights don't say their {lost[0]!r}.", where=named)
    return {**config, **shapes, f"{family}.weights": ""}


def write_weights(state: Mapping[str, Any], folder: Path) -> Path:
    """Write what `TrainedNet.checkpoint` keeps of a net as weights that another fit can begin from.

    Parameters
    ----------
    state : mapping
        The checkpoint of one net.
    folder : Path
        Made where it is not there.

    Returns
    -------
    Path
        The file, in the form of safetensors.

    Raises
    ------
    DataError
        For a model that has no body to begin from, or where the disk refuses.
    """
    body = {n.removeprefix(_BODY): np.asarray(v) for n, v in state["state"].items() if n.startswith(_BODY)}
    family = str(state["family"])
    if not any(name.startswith("linear.") for name in body) or "description" in state or family in NOT_BEGUN_FROM:
        raise DataError(f"A model of the family {family!r} has no weights that another fit could begin from.")
    profile = state["profile"]
    origin = {"family": family, "config": dict(state["config"]), "channels": int(profile["channels"])}
    if "alphabet" in profile:
        origin["alphabet"] = str(profile["alphabet"])
    else:
        origin.update({name: profile[name] for name in ("height", "width", "mean", "std")})
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"The folder can't be made ({error.strerror or error}).", where=str(folder)) from error
    write_safetensors(body, folder / FILE, {_ORIGIN: json.dumps(origin), "format": "pt"})
    return folder / FILE


def refuse_misfits(places: Iterable[str], channels: int, families: Container[str]) -> None:
    """Refuse weights that Tidemill trained for other images or other families; those of others may pass.

    Raises
    ------
    OptionError
        With what doesn't fit.
    MissingExtraError
        For a net of timm where that is not installed.
    """
    for place in places:
        if is_of_timm(place):
            refuse_without_timm()
        why = _misfit(place, channels, families)
        if why is not None:
            raise OptionError(f"These weights can't be begun from: {place}. {why}", where="--weights")


def _misfit(place: str, channels: int, families: Container[str]) -> str | None:
    if is_described(place) and has_vocabulary(place):
        return "The folder holds a vocabulary: its net reads texts."
    origin = origin_of(place)
    if origin is None:
        return None
    if origin.channels != channels:
        return f"They were trained on images of {_colour(origin.channels)}, and these are of {_colour(channels)}."
    if origin.family not in families:
        return f"They are those of the family {origin.family!r}, which is not searched here."
    return None


def _colour(channels: int) -> str:
    return "one channel (grey)" if channels == 1 else f"{channels} channels"
