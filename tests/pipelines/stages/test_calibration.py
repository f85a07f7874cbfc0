"""Calibration: on planted rules every scorer ranks true explanations above wrong ones, through the real stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pyarrow.parquet as pq
import pytest
from planted import fill
from project import small_params, write_params

from builders.lake.shards import Shelf
from builders.scorers import detection, fuzzing
from builders.scorers.calibration import CALIBRATION, MEANINGS, ORACLE, calibration_records, tasks_of
from builders.scorers.chat import ModelJudge, Reading
from builders.scorers.oracle import Oracle
from builders.scorers.statistics import auroc
from builders.scorers.trials import WindowScorer
from builders.seeds import seed_of
from builders.text.vocabulary import VOCABULARY, text_pieces
from pipelines.parts.windows import windows
from pipelines.stages import calibration

if TYPE_CHECKING:
    from pathlib import Path

    from shared import Once

    from builders.scorers.trials import Draw


@pytest.fixture(scope="module")
def built(once: Once) -> Path:
    """Return a project whose planted rules have contexts from all of Python's help topics, and are scored."""
    return once("planted", fill)


@pytest.fixture(scope="module")
def scores(built: Path) -> pd.DataFrame:
    """Return the oracle's scores of all rules by all scorers with all explanations."""
    rows = Shelf(built / "build/calibration").read(CALIBRATION)
    CALIBRATION.validate(rows)
    frame: pd.DataFrame = rows.to_pandas()
    return frame[frame["judge"] == ORACLE]


SIMULATIONS = ("simulation-all-at-once", "simulation-json", "simulation-token-by-token")
SCORERS = ("detection", "fuzzing", "fuzzing-active", "fuzzing-decoy", "surprisal", "embedding", "intervention", *SIMULATIONS)


def test_every_rule_is_scored_with_every_explanation(scores: pd.DataFrame) -> None:
    """Every scorer has a row for each rule and meaning; nothing failed."""
    counts = scores.groupby(["scorer", "meaning"]).size().unstack()

    assert set(counts.index) == set(SCORERS)
    assert set(counts.columns) == set(MEANINGS)
    assert counts.to_numpy().min() == counts.to_numpy().max() >= 8
    assert scores["n_failed"].sum() == 0
    assert set(scores.loc[scores["score"].isna(), "scorer"]) <= {"fuzzing-decoy"}  # some rules fire on every occurrence of a token


def test_decoys_tell_a_broad_explanation(scores: pd.DataFrame) -> None:
    """Where decoys are marked, a perfect judge scores true explanations clearly above too broad ones, and by more than without decoys."""
    wide = scores[scores["meaning"].isin(["true", "broad"])].pivot_table(index="latent", columns=["scorer", "meaning"], values="score")
    gap = {name: (wide[name, "true"] - wide[name, "broad"]).dropna() for name in ("fuzzing", "fuzzing-active", "fuzzing-decoy")}

    assert len(gap["fuzzing-decoy"]) >= 6
    assert gap["fuzzing-decoy"].mean() > 2 * gap["fuzzing-decoy"].sem()
    assert gap["fuzzing-decoy"].mean() > 0.1
    assert gap["fuzzing-decoy"].mean() > max(gap["fuzzing"].mean(), gap["fuzzing-active"].mean()) + 0.05


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


@pytest.mark.parametrize("form", ["list", "single"])
@pytest.mark.parametrize(("scorer", "draw"), [("detection", detection.trials), ("fuzzing", fuzzing.trials)])
def test_every_form_of_questions_says_all(built: Path, scores: pd.DataFrame, scorer: str, draw: Draw, form: str) -> None:
    """In the forms with a schema the prompts tell the oracle as much as in the free form: the scores of the first rules are equal."""
    contexts_of_rules = Shelf(built / "build/contexts/rules")
    vocabulary = contexts_of_rules.read(VOCABULARY)
    special = vocabulary["special"].to_numpy(zero_copy_only=False)
    seed = seed_of(small_params()["seed"], "calibration", "rules")  # the stage's, so that the same marks are lent
    asked = WindowScorer(draw, ModelJudge(text_pieces(vocabulary), Reading(form=form), seed), "random", special, seed)
    tasks = tasks_of(list(windows(contexts_of_rules, "test"))[:6], seed)
    found = pd.DataFrame(calibration_records("rules", tasks, {scorer: asked}, Oracle(calibration.MEANINGS)))

    own = found[found["meaning"] != "other"].set_index(["latent", "meaning"])["score"]
    free = scores[scores["scorer"] == scorer].set_index(["latent", "meaning"])["score"].loc[own.index]

    assert found["n_failed"].sum() == 0
    assert own.tolist() == free.tolist()


def test_without_planted_rules_there_are_no_rows(here: Path) -> None:
    """Where params plant no rules the stage writes an empty table."""
    params = small_params()
    write_params(here, params)
    calibration.main()

    assert pq.read_table(here / "build/calibration/calibration-00000.parquet").num_rows == 0
