"""The table of the paper's experiments in docs/science.md: what it asks of params, params take."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import TYPE_CHECKING, Any, get_origin

import pytest
import yaml
from project import small_params
from pydantic import ValidationError

from pipelines.graph.closure import ROOT
from pipelines.params import Params, load

if TYPE_CHECKING:
    from pathlib import Path

TABLE = (ROOT / "docs/science.md").read_text().partition("## The paper's experiments\n")[2]
CELLS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.splitlines() if line.startswith("| ")][1:]
ROWS = {name: how for name, here, how in CELLS if here == "by params"}
ENTRIES = {name for name, field in Params.model_fields.items() if get_origin(field.annotation) is dict}
# What stands for `…`, and for what the table does not say of an entry.
NAMES: dict[str, Any] = {
    "engine": "server",
    "judge": "asks",
    "embedder": "letters",
    "explainer": "lexical",
    "subject": "lab",
    "corpus": "topics",
}
GIVEN = NAMES | {"repo": "org/name", "revision": "0" * 40, "hookpoint": "layers.1", "model": "some-model"}


def asked(how: str) -> list[tuple[str, Any]]:
    """Return the params that a row names, as (path, value), in order: code that begins with a section of params."""
    found = [yaml.safe_load(code) for code in re.findall(r"`([^`]+)`", how) if code.split(".")[0].split(":")[0] in Params.model_fields]
    return [(path, value) for spec in found if isinstance(spec, dict) for path, value in spec.items()]


def filled(value: Any, key: str = "") -> Any:
    """Return a value of params with a name for each `…`."""
    if isinstance(value, dict):
        return {name: filled(own, name) for name, own in value.items()}
    return GIVEN.get(key, "somewhere") if value == "…" else value


def changed(params: dict[str, Any], path: str, value: Any) -> None:
    """Set params at *path*, or add an entry where the path is a section of entries."""
    section, _, rest = path.partition(".")
    if section in ENTRIES:
        assert not rest
        params[section] = params.get(section, {}) | {f"paper-{len(params.get(section, {}))}": filled(value)}
        return
    keys = rest.split(".")
    for key in [section, *keys[:-1]]:
        params = params.setdefault(key, {})
    params[keys[-1]] = filled(value, keys[-1])


def completed(params: dict[str, Any]) -> Params:
    """Return valid params, with names for what entries of the table leave out; raise ValidationError where anything else is wrong."""
    for _ in range(9):
        try:
            return Params.model_validate(params)
        except ValidationError as error:
            lacking = [detail["loc"] for detail in error.errors() if detail["type"] == "missing" and detail["loc"][-1] in GIVEN]
            if not lacking:
                raise
            for section, entry, *_, key in lacking:
                assert str(entry).startswith("paper-")
                params[section][entry][key] = GIVEN[str(key)]
    raise AssertionError("never complete")


def base() -> dict[str, Any]:
    """Return small params with a language model that explains and judges."""
    params = deepcopy(small_params())
    params["engines"] = {"server": {"kind": "openai", "base_url": "http://localhost:9/v1", "model": "m"}}
    params["judges"]["asks"] = {"kind": "model", "engine": "server"}
    return params


@pytest.mark.parametrize("name", [name for name, how in ROWS.items() if "paper.yaml" not in how])
def test_params_take_what_an_experiment_needs(tmp_path: Path, name: str) -> None:
    """Every experiment that the table calls possible by params names params, and all that one row names are valid together."""
    params, spans = base(), asked(ROWS[name])
    assert spans, f"names no params: {ROWS[name]}"
    for path, value in spans:
        changed(params, path, value)
    completed(params)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    expanded = load(tmp_path / "params.yaml")

    assert len(expanded.saes) == len(params["saes"]) + (25 if "{0..25}" in ROWS[name] else 0)


def test_the_table_says_of_every_experiment_whether_it_is_here() -> None:
    """A row is of an experiment by params, or not here with the reason; headings name both papers."""
    verdicts = [here for _, here, _ in CELLS]

    assert set(verdicts) == {"", "by params", "not here"}
    assert verdicts.count("") == 2
    assert all(how for _, here, how in CELLS if here)
    assert len({name for name, _, _ in CELLS}) == len(CELLS)


def test_a_row_that_params_refuse_is_found() -> None:
    """A row with an unknown key, or with a value that is not allowed, would not pass."""
    for wrong in (
        "`contexts.sampler: best`",
        "`scorers: {kind: fuzzing, mark: random}`",
        "`scorers: {kind: detection, negatives: similar}`",
    ):
        params = base()
        for path, value in asked(wrong):
            changed(params, path, value)
        with pytest.raises(ValidationError):
            completed(params)
