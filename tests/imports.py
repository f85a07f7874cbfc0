"""The project's own import graph, read from the sources."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("builders", "cards", "checkpoints", "pipelines")


def module_file(name: str) -> Path | None:
    """Return the file of one of the project's modules, or None for anything else."""
    base = ROOT.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file() and name.split(".")[0] in PACKAGES:
            return path
    return None


def imported(path: Path) -> set[Path]:
    """Return the project's files that *path* imports, imports for type checkers left out."""
    tree = ast.parse(path.read_text())
    hidden = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    files = {file for name in names if (file := module_file(name))}
    return {file for file in files if not _is_docstring(file)}


def _is_docstring(path: Path) -> bool:
    """Return whether a file holds words and no code, as most __init__.py do."""
    body = ast.parse(path.read_text()).body
    return len(body) == 1 and isinstance(body[0], ast.Expr)


def reached(path: Path) -> set[str]:
    """Return *path* and everything it imports, directly or not, as paths from the project's root."""
    seen: set[Path] = set()
    ahead = [path]
    while ahead:
        file = ahead.pop()
        if file not in seen:
            seen.add(file)
            ahead += imported(file)
    return {file.relative_to(ROOT).as_posix() for file in seen}
