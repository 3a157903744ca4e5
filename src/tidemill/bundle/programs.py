"""Makes the programs that travel with a bundle stand alone.

The programs in ``runner/`` are ordinary modules: tested, typed, and run as they are. What they import from Tidemill
stands between two marks; here that block is replaced by the source of the imported names.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tidemill.core.errors import InternalError
from tidemill.core.schema import Schema

_BEGIN, _END = "# <inlined>\n", "# </inlined>\n"
_RUNNER = Path(__file__).parent / "runner"


@cache
def program(name: str) -> str:
    """Source of a program from ``runner/``, with everything that it needs of Tidemill inside.

    Examples
    --------
    >>> "from tidemill" in program("run.py")
    False
    """
    source = (_RUNNER / name).read_text(encoding="utf-8")
    head, _, rest = source.partition(_BEGIN)
    block, _, tail = rest.partition(_END)
    copied: list[str] = []
    inlined: set[str] = set()
    for node in ast.parse(block).body:
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            raise InternalError(f"Only `from … import …` can be inlined into {name}.")
        inlined.add(node.module)
        copied.append(f"# From {node.module}, unchanged.\n\n{_excerpt(node.module, {a.name for a in node.names})}")
    known, _ = _split_imports(head)
    needed, body = _split_imports("\n\n".join(copied))
    ours = {module for module in needed if module.startswith("tidemill.")}
    if ours - inlined:
        raise InternalError(f"{name} also needs names of {', '.join(sorted(ours - inlined))}.")
    lines = [
        _import_line(module, names)
        for module in sorted(set(needed) - ours)
        if (names := needed[module] - known.get(module, set()))
    ]
    return head + "".join(lines) + "\n" + body + tail.lstrip("\n")


def programs_of(schema: Schema) -> dict[str, str]:
    """Programs that travel with a bundle of such inputs, by their path in it."""
    if schema.has_images:
        return {"run.py": program("images/run.py")}
    if schema.has_texts:
        return {"run.py": program("texts/run.py")}
    if schema.embedded:
        return {"run.py": program("fusion/run.py")}
    return {"run.py": program("run.py"), "1/code/tidemill_pyfunc.py": program("tidemill_pyfunc.py")}


def _excerpt(module: str, wanted: set[str]) -> str:
    """Source of some top-level names of a module, and of the names that they use, in the module's order."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise InternalError(f"There is no source of {module}.")
    source = Path(spec.origin).read_text(encoding="utf-8")
    body = ast.parse(source).body
    kept: set[int] = set()
    todo = set(wanted)
    while todo:
        found: set[str] = set()
        for i, node in enumerate(body):
            if i not in kept and _defines(node) & todo:
                kept.add(i)
                found |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        todo = found
    lines = source.splitlines()
    pieces = []
    for i, node in enumerate(body):
        documented = i - 1 in kept and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if i in kept or (documented and i > 0):
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
            gap = "" if documented else "\n\n" if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else "\n"
            pieces.append(gap + "\n".join(lines[first - 1 : node.end_lineno]))
    return "\n".join(pieces).strip("\n") + "\n"


def _defines(node: ast.stmt) -> set[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return {node.target.id}
    if isinstance(node, (ast.Import, ast.ImportFrom)) and getattr(node, "module", "") != "__future__":
        return {(a.asname or a.name).partition(".")[0] for a in node.names}
    return set()


def _split_imports(text: str) -> tuple[dict[str, set[str]], str]:
    """Take the imports out of a source: names by module, and what is left.

    A module itself is the empty name, or `` as `` with its other one.
    """
    lines = text.splitlines()
    imports: dict[str, set[str]] = {}
    for node in reversed(ast.parse(text).body):
        if isinstance(node, ast.ImportFrom) and node.module:
            imports.setdefault(node.module, set()).update(a.name for a in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                imports.setdefault(alias.name, set()).add(f" as {alias.asname}" if alias.asname else "")
        else:
            continue
        del lines[node.lineno - 1 : node.end_lineno]
    body = "\n".join(lines).strip("\n")
    while "\n\n\n\n" in body:
        body = body.replace("\n\n\n\n", "\n\n\n")
    return imports, body + "\n\n\n"


def _import_line(module: str, names: set[str]) -> str:
    whole = {name for name in names if not name or name.startswith(" ")}
    lines = [f"import {module}{name}\n" for name in sorted(whole)]
    if names - whole:
        lines.append(f"from {module} import {', '.join(sorted(names - whole))}\n")
    return "".join(lines)
