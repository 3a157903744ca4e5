"""What can be done with a bundle: predict, evaluate, export, verify."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.bundle.gaps import OnGap, ignore
from tidemill.bundle.runtime import Bundle
from tidemill.core.schema import SemanticType

if TYPE_CHECKING:
    from tidemill.bundle.fusion.runtime import FusedBundle
    from tidemill.bundle.images.runtime import ImageBundle


def load(path: str | Path) -> Bundle:
    """Open a bundle for predictions.

    Parameters
    ----------
    path : str or Path
        The bundle's folder.

    Returns
    -------
    Bundle
        Ready to predict; the session starts with the first prediction.

    Raises
    ------
    BundleError
        If the folder is no bundle, or a damaged one.
    """
    return Bundle.open(path)


def predict_to_csv(
    bundle: str | Path,
    data: Any,
    out: str | Path | None,
    *,
    images: str | Path | None = None,
    on_unreadable: Callable[[str], None] | None = None,
    engine: str = "inprocess",
    ray_address: str | None = None,
) -> int:
    """Predict a file's rows, or images, into a CSV file, or to standard output.

    Parameters
    ----------
    bundle, data
        The bundle, and what it shall answer.
    out : path or None
        The file; None is standard output.
    images : path, optional
        Folder or archive in which the image files lie that a table names; default beside the table.
    on_unreadable : callable, optional
        Told of each image that can't be read; its cells are empty, or it counts as missing beside other columns.
    engine : str
        ``"inprocess"``; or ``"process"`` for processes of this machine, or ``"ray"`` for the nodes of a cluster, some
        hundred images or texts, or some thousand rows, at a time. The answers are the same. The bytes of images travel
        with the steps, so that a node need not see their folder.
    ray_address : str, optional
        As in `tidemill.sdk.options.FitOptions`.

    Returns
    -------
    int
        Number of rows written.

    Raises
    ------
    OptionError
        Where the engine can't be used, or ``images`` has no use.
    """
    opened, target = load(bundle), sys.stdout if out is None else Path(out)
    seeing = _seeing(opened, images)
    if engine != "inprocess" or ray_address is not None:
        from tidemill.sdk.batch import open_engine, to_csv

        with open_engine(engine, ray_address, (type(opened).__module__,)) as executor:
            batch = opened.batch(data) if seeing is None else seeing.batch(data, images=images)
            return to_csv(executor, opened, batch, target, on_unreadable)
    if seeing is not None:
        return seeing.to_csv(data, target, images=images, on_unreadable=on_unreadable)
    return opened.to_csv(data, target)


def predict_to_records(
    bundle: str | Path,
    data: Any,
    *,
    images: str | Path | None = None,
    on_unreadable: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Predict a file's rows as one dictionary for each row, with the CSV's column names.

    The parameters are those of `predict_to_csv`.
    """
    opened = load(bundle)
    seeing = _seeing(opened, images)
    if seeing is not None:
        return seeing.predict_records(data, images=images, on_unreadable=on_unreadable)
    return opened.predict_records(data)


def evaluate(
    bundle: str | Path, data: Any, *, images: str | Path | None = None, on_gap: OnGap = ignore
) -> dict[str, float]:
    """Compare predictions with the known target of a file; every metric of the task by name.

    Parameters
    ----------
    bundle, data
        The bundle, and rows with their target.
    images : path, optional
        As in `predict_to_csv`.
    on_gap : callable
        Told what can't be used as it should: rows without a known target, images that can't be read.

    Raises
    ------
    DataError
        Where no row can be judged.
    OptionError
        Where ``images`` has no use.
    """
    opened = load(bundle)
    seeing = _seeing(opened, images)
    if seeing is not None:
        return seeing.evaluate(data, images=images, on_gap=on_gap)
    return opened.evaluate(data, on_gap=on_gap)


def _seeing(bundle: Bundle, images: str | Path | None) -> ImageBundle | FusedBundle | None:
    """The bundle, if it looks at images, alone or in columns of a table; else a folder with images is refused."""
    if bundle.schema.has_images:
        from tidemill.bundle.images.runtime import ImageBundle

        assert isinstance(bundle, ImageBundle)
        return bundle
    if any(c.type is SemanticType.IMAGE for c in bundle.schema.embedded):
        from tidemill.bundle.fusion.runtime import FusedBundle

        assert isinstance(bundle, FusedBundle)
        return bundle
    if images is not None:
        from tidemill.core.errors import OptionError

        raise OptionError("This bundle looks at no images.", where="--images", hint="Leave it out.")
    return None


def export(bundle: str | Path, target: str, out: str | Path) -> Path:
    """Write a bundle in the form that another tool wants; see `tidemill.bundle.export` for the targets."""
    from tidemill.bundle.export import export as run

    return run(load(bundle), target, Path(out))


def verify(bundle: str | Path) -> list[str]:
    """Check all of a bundle; an empty list means that it is whole."""
    from tidemill.bundle.verify import verify as run

    return [str(problem) for problem in run(Path(bundle))]


def sign(
    bundle: str | Path, key: str | Path, out: str | Path | None = None, *, new_key: bool = False
) -> tuple[Path, Path | None]:
    """Sign a bundle with a private key, for tools that check OpenSSF model signatures.

    Parameters
    ----------
    bundle : str or Path
        The bundle's folder; it must be whole.
    key : str or Path
        Private key: PEM, elliptic curve.
    out : str or Path, optional
        Where the signature goes; default beside the folder.
    new_key : bool
        Make the pair of keys first.

    Returns
    -------
    (Path, Path or None)
        The signature, and the public key where a pair was made.

    Raises
    ------
    BundleError
        If the bundle is not whole.
    OptionError
        For a key that can't be used.
    MissingExtraError
        Where the extra ``signing`` is absent.
    """
    from tidemill.core.errors import BundleError
    from tidemill.deploy import openssf

    problems = verify(bundle)
    if problems:
        raise BundleError(f"What is not whole is not signed: {problems[0]}", where=str(bundle))
    public = openssf.make_keys(Path(key)) if new_key else None
    return openssf.sign(Path(bundle), Path(key), None if out is None else Path(out)), public


def check_signature(bundle: str | Path, signature: str | Path, key: str | Path) -> str:
    """Check a bundle against an OpenSSF model signature and the public key of who should have signed.

    Returns
    -------
    str
        What does not fit; empty where it does.

    Raises
    ------
    OptionError
        For a key that can't be used.
    MissingExtraError
        Where the extra ``signing`` is absent.
    """
    from tidemill.core.errors import BundleError
    from tidemill.deploy import openssf

    try:
        openssf.check(Path(bundle), Path(signature), Path(key))
    except BundleError as error:
        return str(error)
    return ""
