"""Where a release comes from: what is the same whenever it is built again, and what is known of the run that publishes it.

What is the same lies in the release as provenance.json, so it holds no time, no commit and no machine: the same params would else make
other bytes. A change of code that changes no row must not change them either, so the hashes of code are told by the run, too.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from builders.lake.shards import Shelf, file_sha256
from pipelines.graph.closure import ROOT
from pipelines.graph.git import git
from pipelines.graph.prompts import ASKING, prompts_of
from pipelines.graph.stage import shelf
from pipelines.params import ModelJudgeParams, Params, load
from pipelines.parts.ingredients import ingredients

FILE = "provenance.json"
FORMAT = 1
# Who wrote the rows of a config: the columns that name them, and the files that they were asked with.
AUTHORS = {
    "explanations": ("explainer", "engine", "model", "prompt_sha256"),
    "scores": ("scorer", "judge", "model", "prompt_sha256"),
}
SUBJECT = ("subject", "source", "revision", "files", "quantisation", "reinitialised", "architecture", "dtype", "device")
DICTIONARY = ("sae", "subject", "hookpoint", "kind", "format", "source", "revision", "sha256", "recipe")


def write(release: Path, params: Params, packages: Mapping[str, str], costs: Sequence[Mapping[str, Any]]) -> None:
    """Write provenance.json of the assembled folder *release*; see :func:`stable`."""
    found = stable(release, params, packages, costs)
    (release / FILE).write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def stable(release: Path, params: Params, packages: Mapping[str, str], costs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what provenance.json holds, from params and the tables of the assembled folder *release*.

    *packages* are the versions that made the rows, *costs* what language models were asked. Equal inputs give an equal answer.
    """
    spec = params.model_dump(mode="json")
    return {
        "format": FORMAT,
        "release": {"name": params.release.name, "version": params.release.version},
        "packages": {**packages, "python": platform.python_version(), **{name: version(name) for name in ("dvc", "interplake")}},
        "ingredients": ingredients(params),
        "seeds": {"run": params.seed, "dictionaries": {sae_id: sae["seed"] for sae_id, sae in spec["saes"].items() if "seed" in sae}},
        "corpora": {name: {"documents_sha256": digest, **spec["corpora"][name]} for name, digest in corpora(params).items()},
        "subjects": _rows(release, "subjects", SUBJECT),
        "dictionaries": _rows(release, "saes", DICTIONARY),
        "engines": spec["engines"],
        "authors": {name: _distinct(_rows(release, name, columns)) for name, columns in AUTHORS.items()},
        "asked": list(costs),
        "prompts": {path: file_sha256(ROOT / path) for path in prompts(params)},
        "params_sha256": params_sha256(params),
        "params": spec,
    }


def params_sha256(params: Params) -> str:
    """Return the hash of all params."""
    return hashlib.sha256(json.dumps(params.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def varying() -> dict[str, Any]:
    """Return what is known of this run only: time, machine, the project's git commit, and the hash of the code of every stage."""
    from pipelines.graph.sources import sources

    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": committed(),
        "machine": machine(),
        "code": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in sources(load())},
    }


def corpora(params: Params) -> dict[str, str]:
    """Return the hash of the documents of every corpus that a subject reads, as its tokens were made from them."""
    shelves: dict[str, Shelf] = {subject.corpus: shelf("tokens", subject_id) for subject_id, subject in params.subjects.items()}
    return {corpus_id: shelves[corpus_id].manifest["inputs"]["documents"] for corpus_id in sorted(shelves)}


def prompts(params: Params) -> list[str]:
    """Return the prompt files that explainers, scorers and the judge of steered texts use, as paths from the project's root."""
    specs = [spec for section in ASKING.values() for spec in getattr(params, section).values()]
    used = {path for spec in specs for path in prompts_of(params, spec)}
    if isinstance(params.judges.get(params.steering.open.judge or ""), ModelJudgeParams):
        from builders.steering.ratings import FILES

        used |= {f"builders/steering/prompts/{name}" for name in FILES}
    return sorted(used)


def committed() -> dict[str, Any] | None:
    """Return the commit of the project in the working folder, and whether files differ from it; None where there is no commit."""
    commit = git("rev-parse", "HEAD")
    return None if commit is None else {"commit": commit.strip(), "dirty": bool(git("status", "--porcelain"))}


def machine() -> dict[str, Any]:
    """Return the machine: its processor and cores, memory in bytes, graphics processors, and the kernels that arithmetic uses."""
    import torch

    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name")]
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
        "kernels": os.environ.get("MKL_CBWR", "native").lower(),
    }


def _rows(release: Path, config: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return some columns of a config; no rows where the release does not have it."""
    paths = sorted((release / config).glob("*.parquet"))
    return [row for path in paths for row in pq.read_table(path, columns=list(columns)).to_pylist()]


def _distinct(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each of *rows* once, in order of first appearance."""
    return [dict(row) for row in dict.fromkeys(tuple(row.items()) for row in rows)]
