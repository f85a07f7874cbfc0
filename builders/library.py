"""Libraries imported without the packages that they only look for."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.abc import MetaPathFinder
from types import ModuleType

import pyarrow as pa

SPARED = ("pandas", "scipy", "sklearn")  # for metrics, losses and pipelines that nothing here uses: a quarter of the whole import


@cache
def transformers() -> ModuleType:
    """Return the transformers library with the parts that every model needs loaded; it holds SPARED for absent in this process."""
    with hidden(SPARED):
        library = import_module("transformers")
        if library.is_torch_available():
            import_module("transformers.models.auto.modeling_auto")
    return library


def spare_torch() -> None:
    """Let the transformers library do without torch in this process, so that it reads configurations and tokenizers, but no models.

    For processes of one stage: two seconds each.
    """
    with hidden(("torch",)), silenced("transformers"):
        import_module("transformers").is_torch_available()  # which keeps its answer


@contextmanager
def silenced(name: str) -> Iterator[None]:
    """Keep what a library logs to itself, while inside."""
    logger = logging.getLogger(name)
    logger.addFilter(_nothing)
    try:
        yield
    finally:
        logger.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:  # noqa: ARG001  # as filters are called
    return False


@contextmanager
def hidden(names: Iterable[str]) -> Iterator[None]:
    """Say of packages that nobody has imported yet that they are absent, while inside."""
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None is how Python is told that there is no such module
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


class _NoPandas(MetaPathFinder):
    """Finds no pandas. A None among modules would not do here: compiled code takes it for the module."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:  # noqa: ARG002  # as finders are called
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname)


def spare_pandas() -> None:
    """Let pyarrow do without pandas in this process, unless somebody has imported it: it looks for it at its first array.

    For processes of one stage: half a second each. Where pandas comes later, pyarrow turns nothing into its frames.
    """
    if "pandas" in sys.modules:
        return
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(finder)
