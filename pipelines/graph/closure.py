"""Hashes of a stage's code: of the modules that it imports, directly or not, and of the data files that these name."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("builders", "cards", "checkpoints", "pipelines")
# Left out, since they decide no byte of any output: they print for people, watch over the graph, or are hashed section by section.
SILENT = (
    "builders/errors.py",
    "builders/lake/hashes.py",
    "builders/progress.py",
    "pipelines/graph/closure.py",
    "pipelines/graph/declared.py",
    "pipelines/graph/outside.py",
    "pipelines/graph/prompts.py",
    "pipelines/graph/sources.py",
    "pipelines/params/",
)
# Fields of syntax trees that say only where code stands, or that exist on some versions of Python only.
PLACES = {"ctx", "kind", "type_comment", "type_ignores", "type_params"}
DATA = {".j2", ".yaml"}
REFERENCE = re.compile(r"[\"']([\w.-]+)[\"']")  # a file that a template includes
DIGITS = 16


@dataclass(frozen=True)
class Module:
    """A module's hash, the project's modules that it imports, and the files beside it that it names."""

    digest: str
    imports: tuple[Path, ...]
    data: tuple[Path, ...]


def code_of(stage: str) -> dict[str, str]:
    """Return the hashes of all modules and data files that the module of *stage* reaches, by path from the project's root."""
    return reached(ROOT / f"pipelines/stages/{stage}.py")


def reached(start: Path) -> dict[str, str]:
    """Return the hashes of all modules and data files that the module *start* reaches, by path from the project's root."""
    seen: dict[Path, Module] = {}
    ahead = [start]
    while ahead:
        path = ahead.pop()
        if path not in seen and not named(path).startswith(SILENT):
            seen[path] = module(path)
            ahead += seen[path].imports
    found = {named(path): held.digest for path, held in seen.items()}
    return found | {named(path): digest(path.read_bytes()) for held in seen.values() for path in held.data}


def named(path: Path) -> str:
    """Return *path* relative to the project's root, with slashes."""
    return path.relative_to(ROOT).as_posix()


def digest(text: bytes) -> str:
    """Return the first DIGITS hexadecimal digits of the SHA-256 of *text*."""
    return hashlib.sha256(text).hexdigest()[:DIGITS]


@cache
def module(path: Path) -> Module:
    """Read a module of the project."""
    tree = _tree(path)
    nodes = list(_nodes(tree))
    names = {name for node in nodes for name in _imported(node)} | set(_packages(path))
    imports = {file for name in names if (file := file_of(name)) and not _is_docstring(file)}
    words = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return Module(digest(canonical(tree).encode()), tuple(sorted(imports)), _data(path.parent, imports, words))


def canonical(tree: ast.AST) -> str:
    """Return a syntax tree as text without comments, docstrings and layout; every version of Python gives the same text."""
    said: list[str] = []
    _say(tree, said.append)
    return "".join(said)


def _say(node: Any, say: Callable[[str], None]) -> None:
    if isinstance(node, list):
        for child in node:
            _say(child, say)
    elif isinstance(node, ast.AST):
        say(f"({type(node).__name__}")
        for field in node._fields:
            value: Any = getattr(node, field, None)
            if field == "body" and _has_docstring(node):
                value = value[1:]
            if field not in PLACES and value is not None and value != []:
                say(f" {field}=")
                _say(value, say)
        say(")")
    else:
        say(f"{type(node).__name__}:{node!a};")


def file_of(name: str) -> Path | None:
    """Return the file of one of the project's modules, or None for anything else."""
    base = ROOT.joinpath(*name.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py") if name.split(".")[0] in PACKAGES else ()
    return next((path for path in candidates if path.is_file()), None)


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _packages(path: Path) -> Iterator[str]:
    """Yield the packages around a module, whose own code runs before it."""
    parts = path.relative_to(ROOT).parts[:-1]
    yield from (".".join(parts[:depth]) for depth in range(1, len(parts) + 1))


def _data(folder: Path, imports: set[Path], words: set[str]) -> tuple[Path, ...]:
    """Return the data files that a module names, and those that these files name in turn.

    A name is looked up in the module's own package first, and then in the packages that it imports.
    """
    own, others = files_beside(folder), [files_beside(path.parent) for path in sorted(imports)]
    known = {name: path for some in (*others, own) for name, path in some.items()}
    found: set[Path] = set()
    ahead = [known[word] for word in words if word in known]
    while ahead:
        path = ahead.pop()
        if path not in found:
            found.add(path)
            ahead += [known[name] for name in REFERENCE.findall(path.read_text(encoding="utf-8")) if name in known]
    return tuple(sorted(found))


@cache
def files_beside(folder: Path) -> dict[str, Path]:
    """Return the data files of a package by name: those in its subfolders without Python files, such as `prompts` and `templates`."""
    data_folders = [place for place in folder.iterdir() if place.is_dir() and not any(place.glob("*.py"))]
    return {path.name: path for place in data_folders for path in place.iterdir() if path.suffix in DATA}


def _has_docstring(node: ast.AST) -> bool:
    documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
    return documented and ast.get_docstring(node, clean=False) is not None  # type: ignore[arg-type]  # *documented* says it is one of these


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a syntax tree, without the imports that only type checkers see."""
    ahead = [node]
    while ahead:
        node = ahead.pop()
        yield node
        ahead += [child for child in ast.iter_child_nodes(node) if not _is_for_type_checkers(child)]


def _is_docstring(path: Path) -> bool:
    """Return whether a file holds words and no code, as most __init__.py do."""
    body = _tree(path).body
    return len(body) == 1 and isinstance(body[0], ast.Expr)


def _is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
