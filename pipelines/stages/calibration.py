"""Stage `calibration`: planted rules × every scorer's real prompts, answered by an oracle and by the judges of params.

The oracle's answers show how scorers rank true and wrong explanations, those of judges how often these err.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from builders.arrays import Bools, Floats
from builders.contexts.contexts import Examples, evenly
from builders.interventions.generations import Passages
from builders.lake.shards import Shards
from builders.progress import track
from builders.saes.latents import LATENTS, largest
from builders.saes.planted import RULES
from builders.scorers import detection, fuzzing
from builders.scorers.calibration import CALIBRATION, calibration_records, tasks_of
from builders.scorers.chat import ModelJudge, Reading
from builders.scorers.embedding import EmbeddingScorer
from builders.scorers.forms import FREE
from builders.scorers.intervention import InterventionScorer
from builders.scorers.judges import JUDGES, judge_records
from builders.scorers.judging import Scorer
from builders.scorers.oracle import Oracle, OracleEmbedder
from builders.scorers.simulation import SimulationScorer
from builders.scorers.simulators import FORMS, ModelSimulator
from builders.scorers.surprisal import SurprisalScorer
from builders.scorers.trials import WindowScorer
from builders.seeds import seed_of
from builders.text.vocabulary import VOCABULARY, text_of, text_pieces
from pipelines.graph.declared import declared
from pipelines.graph.stage import code, folder, run, shelf
from pipelines.opened.engines import Engines, account_all
from pipelines.params import PlantedRulesParams
from pipelines.parts.judges import Told, ask_judges
from pipelines.parts.windows import windows

SIMULATED = {"all-at-once": 20, "json": 20, "token-by-token": 5}  # activating windows, and as many silent ones, by form
PASSAGES = 20  # of each side, at most
MEANINGS = {meaning.words: meaning for rule in RULES for meaning in (rule.truth, rule.broad, rule.narrow)}


def main() -> None:
    """Write how scorers rank explanations of planted rules and how often judges err; without planted rules the tables are empty."""
    params = declared("calibration")
    sae_ids = sorted(sae_id for sae_id, spec in params.saes.items() if isinstance(spec, PlantedRulesParams))
    inputs = {sae_id: shelf("contexts", sae_id).digest for sae_id in sae_ids}
    settings: dict[str, Any] = {"seed": params.seed}
    for name in ("engines", "judges", "scorers"):
        settings[name] = {entry_id: spec.model_dump() for entry_id, spec in getattr(params, name).items()}
    shards = Shards(folder("calibration"), inputs, settings, code("calibration"))
    told, engines = Told(), Engines()
    for sae_id in sae_ids:
        seed = seed_of(params.seed, "calibration", sae_id)
        contexts = shelf("contexts", sae_id)
        vocabulary = contexts.read(VOCABULARY)
        pieces = text_pieces(vocabulary)
        most = largest(contexts.read(LATENTS, columns=["max"]))
        rules = list(windows(contexts, "test"))
        scorers = scorers_of(rules, pieces, vocabulary["special"].to_numpy(zero_copy_only=False), most, seed)
        tasks = tasks_of(rules, seed)
        told.records += calibration_records(sae_id, track(tasks, f"calibrating on {sae_id}"), scorers, Oracle(MEANINGS))
        ask_judges(params, sae_id, rules, engines, told)
    shards.write(CALIBRATION, [CALIBRATION.rows(told.records)])
    shards.write(JUDGES, [JUDGES.rows(list(judge_records(told.records, told.spent)))])
    if told.bills:
        account_all(shards, told.bills)
    shards.finish()


def scorers_of(rules: Sequence[Examples], pieces: list[bytes], special: Bools, most: Floats, seed: int) -> dict[str, Scorer]:
    """Return every scorer that needs an explanation, with its real prompts; fuzzing of decoys only where the *rules* have any.

    *pieces* are the bytes of each token id, *special* says which are special; *most* is the largest activation of each rule.
    """
    judge = ModelJudge(pieces, Reading(form=FREE), seed)
    texts = [piece.decode("utf-8", "replace") for piece in pieces]
    found: dict[str, Scorer] = {
        "detection": WindowScorer(detection.trials, judge, "random", special, seed),
        "fuzzing": WindowScorer(fuzzing.trials, judge, "random", special, seed),
        "fuzzing-active": WindowScorer(fuzzing.misplaced, judge, "active", special, seed),
        "surprisal": SurprisalScorer(pieces, "random"),
        "embedding": EmbeddingScorer(OracleEmbedder(MEANINGS), pieces, "random"),
        "intervention": InterventionScorer({rule.latent: as_written(rule, pieces) for rule in rules}),
    }
    if any("decoy" in rule.kind for rule in rules):
        found["fuzzing-decoy"] = WindowScorer(fuzzing.repeated, judge, "decoy", special, seed)
    for form in FORMS:
        found[f"simulation-{form}"] = SimulationScorer(ModelSimulator(form, texts), "random", SIMULATED[form], special, most)
    return found


def as_written(examples: Examples, pieces: Sequence[bytes]) -> Passages:
    """Return passages as a push would leave them: silent windows stand for clean texts, activating ones for pushed texts.

    A rule over text has no direction, so it cannot push anything itself.
    """
    places = [np.flatnonzero(examples.kind == kind) for kind in ("random", "activating")]
    most = min(PASSAGES, *map(len, places))
    sides = [evenly(place, most) for place in places]
    clean, pushed = ([text_of(window, pieces) for window in examples.tokens[side]] for side in sides)
    return Passages(examples.number[sides[1]], "ok", None, clean, pushed, [])


if __name__ == "__main__":
    run(main)
