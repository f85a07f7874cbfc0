"""The datasets of a release: the table of each, the stages that write its rows, and how their files are put together.

The release, its card, the page docs/datasets.md and tests read this list. A new dataset is one more entry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from builders.contexts.contexts import CONTEXTS
from builders.contexts.pool import POOL
from builders.explainers.explanations import EXPLANATIONS
from builders.interventions.generations import GENERATIONS
from builders.interventions.interventions import INTERVENTIONS
from builders.lake.failures import FAILURES
from builders.lake.table import Table
from builders.lenses.accumulator import LENS_CONVERGENCE
from builders.lenses.convergence import LENS_TRAINING
from builders.lenses.decisions import LENS_DECISIONS
from builders.lenses.lenses import LENSES
from builders.lenses.published import LENS_REFERENCE, reference_rows
from builders.lenses.trajectories import TRAJECTORIES
from builders.lenses.transfer import LENS_TRANSFER
from builders.readers.browse import BROWSE
from builders.readers.embeddings import EMBEDDINGS
from builders.readers.vectors import BIASES, VECTORS
from builders.releases.release import Release
from builders.saes.activations import ACTIVATIONS
from builders.saes.latents import LATENTS
from builders.saes.neighbours import NEIGHBOURS
from builders.saes.table import SAES
from builders.scorers.agreement import AGREEMENT
from builders.scorers.anatomy import ANATOMY
from builders.scorers.best import BEST
from builders.scorers.calibration import CALIBRATION
from builders.scorers.judgements import JUDGEMENTS, SCORES
from builders.scorers.judges import JUDGES
from builders.similarity.partners import MATCHES
from builders.similarity.similarity import SIMILARITY
from builders.similarity.splices import SPLICES
from builders.similarity.stability import STABILITY, STABILITY_SCORES
from builders.steering.effects import STEERING, STEERING_ANSWERS, STEERING_VECTORS
from builders.steering.ranges import STEERING_RANGES
from builders.steering.ratings import STEERING_TEXTS
from builders.subjects.checkpoints import SUBJECTS
from builders.text.tokens import TOKENS
from builders.text.vocabulary import VOCABULARY
from pipelines.params import Params
from pipelines.parts import readers
from pipelines.parts.readers import Made


@dataclass(frozen=True)
class Config:
    """A config of the release: its table, the stages whose folders hold its rows, and whether their files are copied.

    Files of large tables are copied as they are, so that a later release has the same bytes. The files of a small table are merged into one
    file in key order.

    Where no stage writes the rows, *constant* makes them; the release has them if the *stages* have rows of the table *beside*, to which
    they belong. Or they are *derived* from the configs that stages write, which may give several tables, as for dictionaries of several
    sizes.
    """

    table: Table
    stages: tuple[str, ...] = ()
    copied: bool = False
    constant: Callable[[], pa.Table] | None = None
    beside: Table | None = None
    derived: Callable[[Params, Release], Made] | None = None


CONFIGS = (
    Config(BROWSE, derived=readers.browse),
    Config(SCORES, ("scores", "direct")),
    Config(ANATOMY, ("agreement",)),
    Config(EXPLANATIONS, ("explanations",)),
    Config(LATENTS, ("contexts",)),
    Config(VECTORS, derived=readers.vectors),
    Config(BIASES, derived=readers.biases),
    Config(EMBEDDINGS, derived=readers.embeddings),
    Config(CONTEXTS, ("contexts",), copied=True),
    Config(POOL, ("contexts",)),
    Config(JUDGEMENTS, ("scores", "direct"), copied=True),
    Config(ACTIVATIONS, ("activations",), copied=True),
    Config(TOKENS, ("tokens",), copied=True),
    Config(VOCABULARY, ("tokens",)),
    Config(AGREEMENT, ("agreement",)),
    Config(BEST, ("agreement",)),
    Config(CALIBRATION, ("calibration",)),
    Config(JUDGES, ("calibration",)),
    Config(NEIGHBOURS, ("neighbours",)),
    Config(SIMILARITY, ("similarity",)),
    Config(MATCHES, ("similarity",)),
    Config(SPLICES, ("similarity",)),
    Config(STABILITY, ("agreement",)),
    Config(STABILITY_SCORES, ("agreement",)),
    Config(INTERVENTIONS, ("interventions",)),
    Config(GENERATIONS, ("interventions",)),
    Config(STEERING, ("steering",)),
    Config(STEERING_RANGES, ("steering",)),
    Config(STEERING_VECTORS, ("steering",)),
    Config(STEERING_ANSWERS, ("steering",)),
    Config(STEERING_TEXTS, ("steering",)),
    Config(LENSES, ("lenses",)),
    Config(LENS_TRANSFER, ("lenses",)),
    Config(LENS_DECISIONS, ("lenses",)),
    Config(TRAJECTORIES, ("lenses",)),
    Config(LENS_TRAINING, ("lenses",)),
    Config(LENS_CONVERGENCE, ("lenses",)),
    Config(LENS_REFERENCE, ("lenses",), constant=reference_rows, beside=LENSES),
    Config(SAES, ("saes",)),
    Config(SUBJECTS, ("subjects",)),
    Config(FAILURES, ("contexts", "interventions", "explanations", "scores", "direct")),
)
