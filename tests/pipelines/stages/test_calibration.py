"""Calibration: on planted rules every scorer ranks true explanations above wrong ones, through the real stages."""

from __future__ import annotations

import pydoc_data.topics
from contextlib import chdir
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow.parquet as pq
import pytest
from project import small_params, write_params

from builders.lake.shards import Shelf
from builders.scorers.calibration import CALIBRATION, MEANINGS
from builders.scorers.statistics import auroc
from pipelines.graph.closure import ROOT
from pipelines.stages import activations, calibration, contexts, corpus, neighbours, sae, subject, tokens

if TYPE_CHECKING:
    from pathlib import Path

    from shared import Once

QUOTA = {"train": 10, "test": 20, "train_random": 10, "test_random": 20}


@pytest.fixture(scope="module")
def built(once: Once) -> Path:
    """Return a project whose planted rules have contexts from all of Python's help topics, and are scored."""
    return once("planted", fill)


def fill(folder: Path) -> None:
    """Build the project in *folder*."""
    (folder / "text").mkdir()
    for name, text in pydoc_data.topics.topics.items():
        (folder / "text" / f"{name}.txt").write_text(text, encoding="utf-8")
    (folder / "checkpoints").symlink_to(ROOT / "checkpoints")
    params = small_params()
    params["tokens"] |= {"length": 256, "window": 32}
    params["saes"] = {"rules": {"source": "planted", "subject": "lab"}}
    params["contexts"] |= QUOTA | {"negatives": {}}
    write_params(folder, params)
    with chdir(folder):
        corpus.main("topics")
        for stage in (subject, tokens):
            stage.main("lab")
        for stage in (sae, activations, neighbours, contexts):
            stage.main("rules")
        calibration.main()


@pytest.fixture(scope="module")
def scores(built: Path) -> pd.DataFrame:
    """Return the scores of all rules by all scorers with all explanations."""
    rows = Shelf(built / "build/calibration").read(CALIBRATION)
    CALIBRATION.validate(rows)
    return rows.to_pandas()


SIMULATIONS = ("simulation-all-at-once", "simulation-json", "simulation-token-by-token")
SCORERS = ("detection", "fuzzing", "fuzzing-active", "surprisal", "embedding", "intervention", *SIMULATIONS)


def test_every_rule_is_scored_with_every_explanation(scores: pd.DataFrame) -> None:
    """Every scorer has a row for each rule and meaning; nothing failed."""
    counts = scores.groupby(["scorer", "meaning"]).size().unstack()

    assert set(counts.index) == set(SCORERS)
    assert set(counts.columns) == set(MEANINGS)
    assert counts.to_numpy().min() == counts.to_numpy().max() >= 8
    assert scores["n_failed"].sum() == 0


@pytest.mark.parametrize("scorer", SCORERS)
def test_true_explanations_score_above_wrong_ones(scores: pd.DataFrame, scorer: str) -> None:
    """On average the true explanation scores above too broad and too narrow ones, and these above another rule's explanation."""
    means = scores[scores["scorer"] == scorer].groupby("meaning")["score"].mean()

    assert means["true"] > max(means["broad"], means["narrow"])
    assert min(means["broad"], means["narrow"]) > means["other"]


@pytest.mark.parametrize("scorer", [name for name in SCORERS if name not in SIMULATIONS])
def test_another_rules_explanation_scores_at_chance(scores: pd.DataFrame, scorer: str) -> None:
    """The mean score with another rule's explanation is within two standard errors of chance."""
    other = scores[(scores["scorer"] == scorer) & (scores["meaning"] == "other")]

    assert abs(other["score"].mean() - other["chance"].iloc[0]) < 2 * other["score"].sem()


@pytest.mark.parametrize("scorer", SIMULATIONS)
def test_another_rules_simulation_is_a_little_below_nothing(scores: pd.DataFrame, scorer: str) -> None:
    """Two rules hardly share a token, so a simulation of another is slightly negative, as in Paulo et al. 2024 (-0.02)."""
    other = scores[(scores["scorer"] == scorer) & (scores["meaning"] == "other")].dropna(subset="score")

    assert -0.06 < other["score"].mean() < 2 * other["score"].sem()


@pytest.mark.parametrize("scorer", ["detection", "fuzzing"])
def test_truth_is_told_from_another_rules_explanation(scores: pd.DataFrame, scorer: str) -> None:
    """Over rules the AUROC of true against another's explanation is at least 0.95."""
    pair = scores[(scores["scorer"] == scorer) & scores["meaning"].isin(["true", "other"])]

    assert auroc((pair["meaning"] == "true").to_numpy(), pair["score"].to_numpy())[0] >= 0.95


def test_without_planted_rules_there_are_no_rows(here: Path) -> None:
    """Where params plant no rules the stage writes an empty table."""
    params = small_params()
    write_params(here, params)
    calibration.main()

    assert pq.read_table(here / "build/calibration/calibration-00000.parquet").num_rows == 0
