"""Writes a folder so that it is there as a whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from tidemill.bundle import manifest
from tidemill.core.errors import BundleError, OptionError

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


@contextlib.contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """Give a new folder beside ``out`` that takes its place when the block ends well.

    An older bundle at ``out`` is replaced in one step. After an error, and after the process was killed, ``out`` is
    as it was; what a killed process left beside it goes with the next write.

    Raises
    ------
    OptionError
        If something else than a bundle stands at ``out``.
    BundleError
        If the file system refuses: full, read-only, not permitted.
    """
    out = Path(os.path.abspath(out))
    check_replaceable(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        temporary = out.with_name(f".{out.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
        temporary.mkdir()
    except OSError as error:
        raise _refused(out, error) from error
    try:
        yield temporary
        _sync_tree(temporary)
        _put_in_place(temporary, out)
    except OSError as error:
        raise _refused(out, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # after a swap this is the older bundle


def check_replaceable(out: Path) -> None:
    """Refuse a place where something stands that is not an older bundle, so that no file of a person is lost."""
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir() or out.is_symlink():
        raise OptionError("There is a file of that name.", where=str(out), hint="Choose another folder.")
    present = {p.relative_to(out).as_posix() for p in out.rglob("*") if not p.is_dir()}
    if not present:
        return
    if not manifest.looks_like_bundle(out):
        raise OptionError(
            "The folder is not empty, and it is not a bundle.", where=str(out), hint="Choose another folder."
        )
    try:
        known = {*manifest.parse((out / manifest.NAME).read_bytes()), manifest.NAME}
    except BundleError as error:
        raise OptionError(
            "A damaged bundle stands in the folder.", where=str(out), hint="Remove it or choose another folder."
        ) from error
    if strangers := sorted(p for p in present - known if "__pycache__" not in p):
        raise OptionError(
            f"The older bundle holds files that are not its own: {', '.join(strangers[:5])}.",
            where=str(out),
            hint="Move them away or choose another folder.",
        )


def _put_in_place(temporary: Path, out: Path) -> None:
    if not out.exists():
        os.rename(temporary, out)
    elif not _exchange(temporary, out):
        # No atomic swap on this system: for a moment there is neither, but both are kept until the new one stands.
        older = temporary.with_suffix(".older")
        os.rename(out, older)
        try:
            os.rename(temporary, out)
        except OSError:
            os.rename(older, out)
            raise
        shutil.rmtree(older, ignore_errors=True)
    _sync(out.parent)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two paths in one step where the system can (Linux); False where it can't."""
    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    return bool(swap(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0)


def _sweep(out: Path) -> None:
    """Remove what writers left that no longer live."""
    for left in out.parent.glob(f".{out.name}.*-*.*"):
        owner = left.name.removeprefix(f".{out.name}.").partition("-")[0]
        if not owner.isdigit() or left.suffix not in (".partial", ".older") or _alive(int(owner)):
            continue
        if left.suffix == ".older" and not out.exists():  # killed between the two renames
            os.rename(left, out)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refused(out: Path, error: OSError) -> BundleError:
    return BundleError(
        f"The folder could not be written: {error.strerror or error}.",
        where=str(out),
        hint="Nothing was left behind; make room or choose another folder.",
    )
