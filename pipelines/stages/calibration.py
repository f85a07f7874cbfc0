"""Stage `calibration`: planted rules × every scorer's real prompts, answered by an oracle → how explanations rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

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
from pipelines.params import PlantedRules
from pipelines.parts.windows import windows

SIMULATED = {"all-at-once": 20, "json": 20, "token-by-token": 5}  # windows of either kind, by form
PASSAGES = 20
MEANINGS = {meaning.words: meaning for rule in RULES for meaning in (rule.truth, rule.broad, rule.narrow)}


def main() -> None:
    """Write how every scorer ranks true and wrong explanations of planted rules; no rows where params plant none."""
    params = declared("calibration")
    names = sorted(name for name, spec in params.saes.items() if isinstance(spec, PlantedRules))
    inputs = {name: shelf("contexts", name).digest for name in names}
    shards = Shards(folder("calibration"), inputs, {"seed": params.seed}, code("calibration"))
    records: list[dict[str, Any]] = []
    for name in names:
        seed = seed_of(params.seed, "calibration", name)
        vocabulary = shelf("contexts", name).read(VOCABULARY)
        pieces = text_pieces(vocabulary)
        scorers = scorers_of(pieces, vocabulary["special"].to_numpy(zero_copy_only=False), seed)
        rules = list(windows(shelf("contexts", name), "test"))
        scorers["intervention"] = InterventionScorer({rule.latent: as_written(rule, pieces) for rule in rules})
        tasks = tasks_of(rules, seed)
        records += calibration_records(name, track(tasks, f"calibrating on {name}"), scorers, Oracle(MEANINGS))
    shards.write(CALIBRATION, [CALIBRATION.rows(records)])
    shards.finish()


def scorers_of(pieces: list[bytes], special: npt.NDArray[np.bool_], seed: int) -> dict[str, Scorer]:
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
    """Return silent windows as though written cleanly and activating ones as though a push had worked: a rule pushes nothing itself."""
    places = [np.flatnonzero(examples.kind == kind) for kind in ("random", "activating")]
    most = min(PASSAGES, *map(len, places))
    sides = [evenly(some, most) for some in places]
    clean, pushed = ([text_of(window, pieces) for window in examples.tokens[side]] for side in sides)
    return Passages(examples.number[sides[1]], "ok", clean, pushed, None)


if __name__ == "__main__":
    run(main)
