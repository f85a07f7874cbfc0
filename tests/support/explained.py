"""A project on a random checkpoint, built up to its contexts, whose engine is a scripted server."""

from __future__ import annotations

import json
import os
import pydoc_data.topics
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import yaml
from llm_server import MODEL, Body, Reply, chat, content_of
from project import TOPICS, environment, small_params, write_params

from pipelines.graph.closure import ROOT
from pipelines.stages import activations, contexts, corpora, neighbours, saes, subjects, tokens

if TYPE_CHECKING:
    from pathlib import Path

SAE = "random"
KINDS = ("default", "no-activations", "chain-of-thought", "logits", "contrastive", "single-token")
Start = Callable[..., "Path"]


def text_of(body: Body) -> str:
    """Return the explanation that the scripted server gives to a question; each question has its own."""
    return f"words numbered {content_of(body)}"


def explains(body: Body, _: int) -> Reply:
    """Answer every question with its own explanation."""
    return chat(f"Let me see.\n[EXPLANATION]: {text_of(body)}")


def params_of(width: int, k: int, **quotas: Any) -> dict[str, Any]:
    """Return params with one random SAE and an explainer of every kind; their engine is a server that is not started yet."""
    params = small_params()
    params["subjects"]["lab"]["path"] = "model"
    params["saes"] = {SAE: {"source": "random", "subject": "lab", "hookpoint": "layers.1", "width": width, "k": k}}
    params["contexts"] |= {"train": 4, "test": 2, "train_random": 3, "test_random": 2, "quantiles": 2, "negatives": {"decoder": 2}} | quotas
    params["engines"] = {"server": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "model": MODEL, "retries": 0, "concurrency": 4}}
    asking: dict[str, dict[str, Any]] = {kind: {"kind": kind, "engine": "server", "examples": 4, "silent": 2} for kind in KINDS}
    asking["intervention"] = {"kind": "intervention", "engine": "server", "examples": 3, "kl": 0.05}
    params["explainers"] = {name: spec | {"baseline": "none"} for name, spec in asking.items()}
    params["explainers"]["imported"] = {"kind": "import", "path": "theirs.csv"}
    return params


def build(folder: Path, checkpoint: Path, width: int, k: int, **quotas: Any) -> None:
    """Make a project in *folder*, with *quotas* of contexts other than the small ones here, and build it up to them."""
    (folder / "text").mkdir(parents=True)
    for topic in TOPICS:
        (folder / "text" / f"{topic}.txt").write_text(pydoc_data.topics.topics[topic][:3000], encoding="utf-8")
    shutil.copytree(checkpoint, folder / "model")
    write_params(folder, params_of(width, k, **quotas))
    with chdir(folder):
        corpora.main("topics")
        for stage in (subjects, tokens):
            stage.main("lab")
        for stage in (saes, activations, neighbours, contexts):
            stage.main(SAE)


def change(folder: Path, engine: dict[str, Any] | None = None, **explainers: dict[str, Any]) -> None:
    """Change the params of the engine, and of explainers by id (`_` for `-`); a new explainer starts from the params of `default`."""
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["engines"]["server"] |= engine or {}
    for name, spec in explainers.items():
        key = name.replace("_", "-")
        params["explainers"][key] = params["explainers"].get(key, params["explainers"]["default"]) | spec
    write_params(folder, params)


def table(folder: Path, explainer: str, name: str = "explanations") -> list[dict[str, Any]]:
    """Return the rows that an explainer left."""
    rows: list[dict[str, Any]] = pq.read_table(folder / f"build/explanations/{explainer}/{SAE}/{name}-00000.parquet").to_pylist()
    return rows


def latents_with_contexts(folder: Path) -> list[int]:
    """Return the latents that have contexts."""
    paths = sorted((folder / f"build/contexts/{SAE}").glob("contexts-*.parquet"))
    return sorted({latent for path in paths for latent in pq.read_table(path, columns=["latent"])["latent"].to_pylist()})


def usage_of(folder: Path, explainer: str) -> dict[str, Any]:
    """Return what an explainer's answers cost."""
    told: dict[str, Any] = json.loads((folder / f"build/explanations/{explainer}/{SAE}/usage.json").read_text())
    return told


def command(folder: Path, *ids: str, stage: str = "explanations") -> subprocess.Popen[str]:
    """Start the real command of a stage in *folder*."""
    return subprocess.Popen(
        [sys.executable, "-m", f"pipelines.stages.{stage}", ids[-1], SAE, *ids[:-1]],
        cwd=folder,
        env=environment() | {"PYTHONPATH": os.fspath(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
