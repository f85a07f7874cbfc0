"""Import large libraries faster: optional packages that they would load, and that nothing here needs, are hidden from them."""

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

SPARED = ("pandas", "scipy", "sklearn")  # only for metrics and pipelines that nothing here uses; a quarter of the import


@cache
def transformers() -> ModuleType:
    """Return the transformers library, with the parts loaded that every model needs. In this process it does not see SPARED."""
    with hidden(SPARED):
        library = import_module("transformers")
        if library.is_torch_available():
            import_module("transformers.models.auto.modeling_auto")
    return library


def spare_torch() -> None:
    """Hide torch from the transformers library in this process: it then reads configurations and tokenizers, but no models.

    This saves two seconds in every process that runs one stage.
    """
    with hidden(("torch",)), silenced("transformers"):
        import_module("transformers").is_torch_available()  # the library remembers the answer


@contextmanager
def silenced(name: str) -> Iterator[None]:
    """Drop all messages of the logger *name* inside this context."""
    logger = logging.getLogger(name)
    logger.addFilter(_nothing)
    try:
        yield
    finally:
        logger.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:  # noqa: ARG001  # the signature of a logging filter
    return False


@contextmanager
def hidden(names: Iterable[str]) -> Iterator[None]:
    """Make those of the packages *names* that are not imported yet look absent inside this context."""
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # a None tells Python that there is no such module
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


class _NoPandas(MetaPathFinder):
    """An import finder that says that pandas is absent. A None in sys.modules would not do: compiled code takes it for the module."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:  # noqa: ARG002  # the signature of a finder
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname)


def spare_pandas() -> None:
    """Hide pandas from pyarrow in this process, unless pandas is imported already.

    Pyarrow would load it with its first array; this saves half a second in every process that runs one stage. If pandas is
    imported later, pyarrow cannot convert tables to its data frames.
    """
    if "pandas" in sys.modules:
        return
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(finder)
