"""A bare environment: a Python that can import onnxruntime, numpy and what those two need, and nothing else."""

from __future__ import annotations

import importlib.metadata as metadata
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from tidemill.core.errors import InternalError

PACKAGES = ("onnxruntime", "numpy")


def make_bare_environment(folder: Path) -> Path:
    """Make a virtual environment that holds onnxruntime, numpy and their own requirements only.

    The packages are linked from the running environment: nothing is downloaded, and it takes about a second.

    Parameters
    ----------
    folder : Path
        Where to make it; what is there is replaced.

    Returns
    -------
    Path
        Its Python.

    Raises
    ------
    InternalError
        If the new environment can import what it should not, or can't import what it should.
    """
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    found = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    site = Path(found.stdout.strip())
    for name in sorted(_closure(PACKAGES)):
        _link(name, site)
    _prove(python)
    return python


def _closure(names: tuple[str, ...]) -> set[str]:
    """Names of distributions and all that they require without extras."""
    wanted: set[str] = set()
    todo = list(names)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in wanted:
            continue
        wanted.add(name)
        for line in metadata.requires(name) or ():
            if "extra ==" not in line:
                todo.append(re.split(r"[^A-Za-z0-9._-]", line.strip(), maxsplit=1)[0])
    return wanted


def _link(name: str, site: Path) -> None:
    """Link the top-level files and folders of an installed distribution into ``site``."""
    distribution = metadata.distribution(name)
    tops = {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__", "/")}
    for top in tops:
        source, target = Path(str(distribution.locate_file(top))), site / top
        if source.is_dir() and top == "google":  # a namespace that several distributions share
            target.mkdir(exist_ok=True)
            for child in source.iterdir():
                if not (target / child.name).exists():
                    (target / child.name).symlink_to(child)
        elif source.exists() and not target.exists():
            target.symlink_to(source)


def _prove(python: Path) -> None:
    check = (
        "import importlib.util as u, sys, numpy, onnxruntime; "
        "strangers = ('tidemill', 'sklearn', 'lightgbm', 'pyarrow', 'onnx', 'pandas', 'scipy'); "
        "bad = [m for m in strangers if u.find_spec(m)]; "
        "sys.exit(f'also importable: {bad}' if bad else 0)"
    )
    done = subprocess.run([str(python), "-I", "-c", check], capture_output=True, text=True)
    if done.returncode:
        raise InternalError(f"The bare environment of {sys.executable} isn't bare: {done.stderr.strip()[-500:]}")
