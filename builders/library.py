"""The transformers library, imported without the packages that it only looks for."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from types import ModuleType

SPARED = ("pandas", "scipy", "sklearn")  # for metrics, losses and pipelines that nothing here uses: a third of the whole import


@cache
def transformers() -> ModuleType:
    """Return the library with the parts that every model needs loaded.

    Whatever of SPARED nobody has imported yet is hidden meanwhile. The library then holds it for absent, in this process.
    """
    hidden = [name for name in SPARED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is how Python is told that there is no such module
    try:
        library = import_module("transformers")
        import_module("transformers.models.auto.modeling_auto")
    finally:
        for name in hidden:
            del sys.modules[name]
    return library
