"""Stage `calibration`: planted rules × every scorer's real prompts, answered by an oracle → the ranks of true and wrong explanations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from builders.arrays import Bools
from builders.contexts.contexts import Examples, evenly
from builders.interventions.generations import Passages
from builders.lake.shards import Shards
from builders.progress import track
from builders.saes.planted import RULES
from builders.scorers import detection, fuzzing
from builders.scorers.calibration import CALIBRATION, calibration_records, tasks_of
from builders.scorers.chat import ModelJudge, Reading
from builders.scorers.embedding import EmbeddingScorer
from builders.scorers.intervention import InterventionScorer
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
from pipelines.params import PlantedRulesParams
from pipelines.parts.windows import windows

SIMULATED = {"all-at-once": 20, "json": 20, "token-by-token": 5}  # activating windows, and as many silent ones, by form
PASSAGES = 20  # of each side, at most
MEANINGS = {meaning.words: meaning for rule in RULES for meaning in (rule.truth, rule.broad, rule.narrow)}


def main() -> None:
    """Write how every scorer ranks true and wrong explanations of planted rules; without planted rules the table is empty."""
    params = declared("calibration")
    sae_ids = sorted(sae_id for sae_id, spec in params.saes.items() if isinstance(spec, PlantedRulesParams))
    inputs = {sae_id: shelf("contexts", sae_id).digest for sae_id in sae_ids}
    shards = Shards(folder("calibration"), inputs, {"seed": params.seed}, code("calibration"))
    records: list[dict[str, Any]] = []
    for sae_id in sae_ids:
        seed = seed_of(params.seed, "calibration", sae_id)
        vocabulary = shelf("contexts", sae_id).read(VOCABULARY)
        pieces = text_pieces(vocabulary)
        scorers = scorers_of(pieces, vocabulary["special"].to_numpy(zero_copy_only=False), seed)
        rules = list(windows(shelf("contexts", sae_id), "test"))
        scorers["intervention"] = InterventionScorer({rule.latent: as_written(rule, pieces) for rule in rules})
        tasks = tasks_of(rules, seed)
        records += calibration_records(sae_id, track(tasks, f"calibrating on {sae_id}"), scorers, Oracle(MEANINGS))
    shards.write(CALIBRATION, [CALIBRATION.rows(records)])
    shards.finish()


def scorers_of(pieces: list[bytes], special: Bools, seed: int) -> dict[str, Scorer]:
    """Return every scorer that needs an explanation, with its real prompts; *pieces* are the bytes of each token id."""
    judge = ModelJudge(pieces, Reading(), seed)
    texts = [piece.decode("utf-8", "replace") for piece in pieces]
    found: dict[str, Scorer] = {
        "detection": WindowScorer(detection.trials, judge, "random", special, seed),
        "fuzzing": WindowScorer(fuzzing.trials, judge, "random", special, seed),
        "fuzzing-active": WindowScorer(fuzzing.misplaced, judge, "active", special, seed),
        "surprisal": SurprisalScorer(pieces, "random"),
        "embedding": EmbeddingScorer(OracleEmbedder(MEANINGS), pieces, "random"),
    }
    for form in FORMS:
        found[f"simulation-{form}"] = SimulationScorer(ModelSimulator(form, texts), "random", SIMULATED[form], special)
    return found


def as_written(examples: Examples, pieces: Sequence[bytes]) -> Passages:
    """Return passages as a push would leave them: silent windows stand for clean texts, activating ones for pushed texts.

    A rule over text has no direction, so it cannot push anything itself.
    """
    places = [np.flatnonzero(examples.kind == kind) for kind in ("random", "activating")]
    most = min(PASSAGES, *map(len, places))
    sides = [evenly(place, most) for place in places]
    clean, pushed = ([text_of(window, pieces) for window in examples.tokens[side]] for side in sides)
    return Passages(examples.number[sides[1]], "ok", clean, pushed, None)


if __name__ == "__main__":
    run(main)
