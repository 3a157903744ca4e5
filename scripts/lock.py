"""Write the lock files from what is installed in this environment.

Reads the requirements of ``pyproject.toml``, follows them through the installed packages' own metadata, and writes
one ``name==version`` line each: no resolver, no addresses, no hashes. Run it with the environment whose versions
are wanted, after a change of dependencies::

    .venv/bin/python scripts/lock.py           write
    .venv/bin/python scripts/lock.py --check   exit 1 if a lock differs from the installed packages
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:  # packaging, mypy and pytest bring tomli along on Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent

# Python 3.10 gets older releases of half the packages, hence locks of its own.
SUFFIX = "-py310" if sys.version_info < (3, 11) else ""

LOCKS = {
    # What `make demo` needs: the default install, the optional family, and what installs the checkout itself.
    f"requirements-run{SUFFIX}.lock": ("catboost", "build"),
    # What `make test` and `make bench` need.
    f"requirements{SUFFIX}.lock": (
        "catboost", "serve", "grpc", "otel", "signing", "openvino", "redis", "delta", "duckdb", "postgres", "s3",
        "dataframes", "mlflow", "pandera", "gx", "dev", "bench", "build",
    ),
    # What the tests of nets need besides; installed with its dependencies, which differ with the hardware.
    f"requirements-deep{SUFFIX}.lock": ("deep", "text"),
}  # fmt: skip

# An editable install by hatchling without an isolated build needs these two.
BUILD = ["hatchling", "editables"]


def wanted(requirement: Requirement, extras: Iterable[str]) -> bool:
    """Say whether a requirement's marker holds here under any of the extras."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def closure(requirements: Iterable[str]) -> dict[str, str]:
    """Follow requirements to the end; give canonical names and installed versions."""
    found: dict[str, str] = {}
    done: set[tuple[str, frozenset[str]]] = set()
    queue = [Requirement(text) for text in requirements]
    queue = [requirement for requirement in queue if wanted(requirement, ())]
    missing: list[str] = []
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        extras = frozenset(requirement.extras)
        if (name, extras) in done:
            continue
        done.add((name, extras))
        try:
            package = distribution(name)
        except PackageNotFoundError:
            missing.append(str(requirement))
            continue
        if not requirement.specifier.contains(package.version, prereleases=True):
            missing.append(f"{requirement} (installed: {package.version})")
        found[name] = package.version
        children = [Requirement(text) for text in package.requires or []]
        queue.extend(child for child in children if wanted(child, extras))
    if missing:
        raise SystemExit("Not installed here, or not in the range asked for: " + "; ".join(sorted(missing)))
    return found


def lock_text(extras: Iterable[str]) -> str:
    """Give the text of one lock file."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    groups: dict[str, list[str]] = {**project["optional-dependencies"], "build": BUILD}
    packages = closure([*project["dependencies"], *(line for extra in extras for line in groups[extra])])
    # A build's label (2.13.0+cpu) says where a package came from, which is not for a lock to say.
    return "".join(f"{name}=={version.partition('+')[0]}\n" for name, version in sorted(packages.items()))


def main() -> int:
    """Write the locks, or compare them."""
    check = "--check" in sys.argv[1:]
    stale = []
    for name, extras in LOCKS.items():
        path = ROOT / name
        try:
            text = lock_text(extras)
        except SystemExit as absent:
            if path.exists():
                raise
            print(f"{name} is not made. {absent}")  # there is none for this Python, and nothing to make it from
            continue
        if check:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(name)
        else:
            path.write_text(text, encoding="utf-8")
            print(f"{name}: {len(text.splitlines())} packages")
    if stale:
        print("These locks differ from what is installed:", ", ".join(stale))
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
