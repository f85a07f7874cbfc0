"""Judges of params on planted rules, and what their errors do to scores: stages `calibration`, `scores` and `agreement` with a server."""

from __future__ import annotations

import csv
import json
import math
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from llm_server import listed, serving
from planted import SENSITIVITY, SPECIFICITY, fill, params_of, reads
from project import write_params

from builders.lake.shards import Shelf
from builders.saes.planted import RULES
from builders.scorers.anatomy import ANATOMY
from builders.scorers.calibration import CALIBRATION
from builders.scorers.judges import JUDGES
from pipelines.graph.declared import declared
from pipelines.graph.stage import folder, shelf
from pipelines.opened.engines import Engines
from pipelines.parts.judges import Told, ask_judges
from pipelines.parts.windows import windows
from pipelines.stages import agreement, calibration, explanations, scores

if TYPE_CHECKING:
    from shared import Once

    from builders.lake.table import Table

MODELS = ("erring", "knowing")
MEANINGS = {"true": "truth", "broad": "broad", "narrow": "narrow"}  # fields of a rule, by the explainer that tells them
LIMITS = {"rules": 14, "windows": 18}


@pytest.fixture(scope="module")
def project(once: Once) -> Path:
    """Return a project in which both models have judged true, too broad and too narrow explanations of planted rules."""
    built = once("planted", fill)
    return once("judged", lambda folder: run(built, folder))


def run(built: Path, project: Path) -> None:
    """Judge in *project*, whose rules have the contexts of the project *built*; tell what was asked in a second run of the judges."""
    (project / "build").mkdir()
    for path in (*built.iterdir(), *(built / "build").iterdir()):
        if path.name not in {"build", "calibration", "params.yaml"}:
            (project / path.relative_to(built)).symlink_to(path)
    for meaning, text in MEANINGS.items():
        with (project / f"{meaning}.csv").open("w") as file:
            rows = [(latent, getattr(rule, text).words) for latent, rule in enumerate(RULES)]
            csv.writer(file).writerows([("latent", "explanation"), *rows])
    with chdir(project), serving(reads, listed(*MODELS)) as server:
        asked(server.url, LIMITS)
        for meaning in MEANINGS:
            explanations.main(meaning)
        for model in MODELS:
            scores.main(f"pool-{model}")
            scores.main(f"fuzzing-{model}")
        server.forget()
        calibration.main()
        agreement.main()
        counts = [len(server.bodies)]
        for limits in (LIMITS, {"rules": 0}):
            server.forget()
            asked(server.url, limits)
            told = Told()
            ask_judges(declared("calibration"), "rules", list(windows(shelf("contexts", "rules"), "test")), Engines(), told)
            counts += [len(server.bodies), len(told.bills)]
        asked(server.url, LIMITS)
        Path("counts.json").write_text(json.dumps(counts))


def asked(url: str, limits: dict[str, int]) -> None:
    """Write params with two judges that ask the server at *url*, and *limits* of their calibration."""
    params = params_of() | {"direct_scorers": {}, "scorers": {}, "judges": {"lexical": {"kind": "lexical"}}, "engines": {}}
    for model in MODELS:
        params["engines"][model] = {"kind": "openai", "base_url": url, "model": model, "retries": 0}
        params["judges"][model] = {"kind": "model", "engine": model, "form": "free", "shown": 20, "calibration": limits}
        params["scorers"][f"pool-{model}"] = {"kind": "detection", "judge": model, "negatives": "pool"}
        params["scorers"][f"fuzzing-{model}"] = {"kind": "fuzzing", "judge": model, "negatives": "active"}
    params["explainers"] = {meaning: {"kind": "import", "path": f"{meaning}.csv", "baseline": "none"} for meaning in MEANINGS}
    write_params(Path(), params)


def read(project: Path, table: Table, stage: str) -> pd.DataFrame:
    """Return the rows that a stage left, once they are seen to be valid."""
    rows = Shelf(project / folder(stage)).read(table)
    table.validate(rows)
    frame: pd.DataFrame = rows.to_pandas()
    return frame


class TestCalibration:
    """What stage `calibration` asks of judges, and what it tells of them."""

    def test_every_judge_is_asked_about_true_and_false_explanations(self, project: Path) -> None:
        """A judge has two rows for each rule and way of asking, within its limits; all rows of a way are one row of `judges`."""
        rows, judges = read(project, CALIBRATION, "calibration"), read(project, JUDGES, "calibration")
        told = rows[rows["judge"].isin(MODELS)]

        assert told["meaning"].value_counts().to_dict() == dict.fromkeys(("true", "other"), len(told) // 2)
        assert set(told["scorer"]) == {"detection", "fuzzing", "fuzzing-active"}
        assert (told.groupby(["judge", "scorer"])["latent"].nunique() == 14).all()
        assert (told["n"] + told["n_failed"] == 36).all()
        assert (told["n_positive"] == 18).all()
        assert told["prompt_characters"].isna().all()
        assert set(told["text"]) <= {rule.truth.words for rule in RULES}
        assert set(judges["judge"]) == {*MODELS, "oracle", "lexical"}
        assert (judges.loc[judges["judge"].isin(MODELS), "apart"] > 0.8).all()
        assert (judges.loc[judges["judge"].isin(MODELS), "n_positive"] == 14 * 18).all()

    def test_a_judge_that_cannot_read_rules_has_a_status(self, project: Path) -> None:
        """The lexical judge finds no token named in plain words: every window fails, with that reason and without a rate."""
        rows, judges = read(project, CALIBRATION, "calibration"), read(project, JUDGES, "calibration")
        lexical = judges[judges["judge"] == "lexical"]

        assert set(lexical["scorer"]) == {"detection", "fuzzing"}
        assert set(lexical["status"]) == set(rows.loc[rows["judge"] == "lexical", "status"]) == {"names no token"}
        assert lexical[["sensitivity", "specificity", "youden"]].isna().all(axis=None)
        assert lexical["n_positive"].sum() == 0
        assert (lexical["n_failed"] > 0).all()

    def test_answers_are_kept_and_counted(self, project: Path) -> None:
        """Tokens of all judges' answers are told; a second run asks for none again, and a limit of no rules asks nothing."""
        first = json.loads((project / folder("calibration") / "usage.json").read_text())
        judges = read(project, JUDGES, "calibration")
        asking = judges[judges["judge"].isin(MODELS)]
        count, again, bills, without, no_bills = json.loads((project / "counts.json").read_text())

        assert (again, bills, without, no_bills) == (0, 6, 0, 0)
        assert first["answers"] == count
        assert first["prompt_tokens"] == asking["prompt_tokens"].sum() == 7 * count
        assert asking["model"].tolist() == asking["judge"].tolist()


@pytest.fixture(scope="module")
def judged(project: Path) -> pd.DataFrame:
    """Return the anatomy of all scores, beside what is told of their judges."""
    frame, judges = read(project, ANATOMY, "agreement"), read(project, JUDGES, "calibration").set_index(["judge", "scorer"])
    frame["way"] = frame["scorer"].str.partition("-")[0].map({"pool": "detection", "fuzzing": "fuzzing-active"})
    names = ["sensitivity", "specificity", "youden", "youden_se"]
    rates = judges.loc[list(zip(frame["judge"], frame["way"], strict=True)), names].reset_index(drop=True)
    return frame.join(rates.add_prefix("judge_"))


def both(judged: pd.DataFrame, way: str, meaning: str, name: str) -> pd.DataFrame:
    """Return a figure by rule, a column for each judge."""
    rows = judged[(judged["way"] == way) & (judged["explainer"] == meaning)]
    return rows.pivot_table(index="latent", columns="judge", values=name)


WAYS = ("detection", "fuzzing-active")


class TestCorrection:
    """A judge that errs by a script, beside one that errs only where windows are cut."""

    @pytest.mark.parametrize("way", WAYS)
    def test_the_judge_s_rates_are_those_of_its_script(self, judged: pd.DataFrame, way: str) -> None:
        """The measured rates are those of the script, applied to what the knowing judge answers."""
        by = judged[judged["way"] == way].drop_duplicates("judge").set_index("judge")
        knowing, erring = by.loc["knowing"], by.loc["erring"]
        hit, silent = knowing["judge_sensitivity"], knowing["judge_specificity"]
        seen = SENSITIVITY * hit + (1 - SPECIFICITY) * (1 - hit), SPECIFICITY * silent + (1 - SENSITIVITY) * (1 - silent)

        assert (erring["judge_sensitivity"], erring["judge_specificity"]) == pytest.approx(seen, abs=0.06)
        assert erring["judge_youden"] == pytest.approx(sum(seen) - 1, abs=2 * erring["judge_youden_se"])

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("meaning", MEANINGS)
    def test_corrected_scores_are_those_of_a_judge_that_knows(self, judged: pd.DataFrame, way: str, meaning: str) -> None:
        """The mean corrected score is within two errors of the one that a judge without such errors gives; the raw score is lower."""
        raw, mended = both(judged, way, meaning, "score").mean(), both(judged, way, meaning, "corrected_score")
        gap = mended["erring"] - mended["knowing"]
        shared = judged[(judged["way"] == way) & (judged["judge"] == "erring")].iloc[0]
        error = math.hypot(gap.sem(), (mended["erring"].mean() - 0.5) * shared["judge_youden_se"] / shared["judge_youden"])

        assert abs(gap.mean()) < min(2 * error, 0.08)
        assert raw["erring"] - 0.5 == pytest.approx((raw["knowing"] - 0.5) * (SENSITIVITY + SPECIFICITY - 1), abs=0.03)

    @pytest.mark.parametrize("way", WAYS)
    def test_a_true_explanation_scores_one(self, judged: pd.DataFrame, way: str) -> None:
        """Judged by either judge, true explanations have a mean corrected score of 1."""
        assert both(judged, way, "true", "corrected_score").mean().to_dict() == pytest.approx({"erring": 1.0, "knowing": 1.0}, abs=0.08)

    def test_errors_cover_what_windows_are_drawn(self, judged: pd.DataFrame) -> None:
        """Rule by rule the two corrected scores differ by about their standard errors."""
        rows = judged[judged["way"] == "detection"].set_index(["explainer", "latent", "judge"])
        value, error = (rows[name].unstack() for name in ("corrected_score", "corrected_score_se"))
        z = (value["erring"] - value["knowing"]) / (error**2).sum(axis=1) ** 0.5

        assert 0.3 < (z**2).mean() < 1.5

    def test_narrow_and_broad_show_in_their_own_places(self, judged: pd.DataFrame) -> None:
        """By a judge that knows, narrow explanations lose recall and stay precise; broad ones lose precision and no recall."""
        rows = judged[(judged["way"] == "detection") & (judged["judge"] == "knowing")]
        means: dict[str, Any] = rows.groupby("explainer")[["recall", "ppv", "breadth", "prevalence"]].mean().T.to_dict()

        assert means["true"]["breadth"] == pytest.approx(means["true"]["prevalence"], abs=0.02)
        assert means["broad"]["breadth"] > 2 * means["broad"]["prevalence"]
        assert means["narrow"]["breadth"] < means["narrow"]["prevalence"] / 2
        assert means["narrow"]["recall"] < 0.4 < 0.85 < means["true"]["recall"]
        assert means["broad"]["recall"] > 0.9
        assert means["broad"]["ppv"] < 0.6 < 0.9 < min(means["true"]["ppv"], means["narrow"]["ppv"])

    def test_marks_have_no_breadth(self, judged: pd.DataFrame) -> None:
        """Fuzzing is corrected, and has neither breadth nor predictive value."""
        rows = judged[judged["way"] == "fuzzing-active"]

        assert rows[["breadth", "ppv", "corrected_breadth", "corrected_ppv"]].isna().all(axis=None)
        assert rows["corrected_score"].notna().all()
        assert set(judged["status"]) == {"ok"}
