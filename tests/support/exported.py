"""A small release of three dictionaries, whose texts hold every character that a file format may stumble over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from rows import rows_of

from builders.contexts.contexts import CONTEXTS
from builders.contexts.pool import POOL
from builders.explainers.explanations import EXPLANATIONS
from builders.lake.shards import write_parquet
from builders.releases.release import Release, open_release, write_contents
from builders.saes.activations import ACTIVATIONS
from builders.saes.latents import LATENTS
from builders.saes.table import SAES
from builders.scorers.judgements import JUDGEMENTS, SCORES
from builders.subjects.checkpoints import SUBJECTS
from builders.text.vocabulary import VOCABULARY

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    import pyarrow as pa

    from builders.lake.table import Table

PIECES = ["ice", ' "cold"', "a|b", "\n", "\x00\x07", "\\xff", "日本", "<b>"]
TEXTS = ['the word "ice"', "two\nlines | a pipe", "\x01control\x7f, le café, 日本 🙂"]
WIDTHS = {"toy-l1-top": 3, "toy-l2-top": 3, "toy-rules": 2}  # the last reads tokens, so it has no layer
HOOKPOINTS = {"toy-l1-top": "layers.1", "toy-l2-top": "layers.2.mlp", "toy-rules": None}
SAE = "toy-l1-top"
Row = dict[str, Any]


def dictionary_rows() -> list[Row]:
    """Return the rows of `saes`."""
    fixed = {"subject": "lab", "kind": "trained", "format": "sparsify", "source": "made here"}
    return [{"sae": sae, "hookpoint": HOOKPOINTS[sae], "width": width, **fixed} for sae, width in WIDTHS.items()]


def latent_rows(sae: str) -> list[Row]:
    """Return the rows of `latents` of a dictionary; its last latent never fires."""
    dead = {"status": "dead", "count": 0, "density": 0.0, "max": None, "mean": None}
    alive = {"status": "alive", "count": 4, "density": 0.1, "max": 0.4, "promotes": ["ice", "\n"], "suppresses": ["日本"]}
    last = WIDTHS[sae] - 1
    return [{"sae": sae, "latent": latent, **(dead if latent == last else alive)} for latent in range(WIDTHS[sae])]


def activation_rows(sae: str) -> list[Row]:
    """Return the rows of `activations`: each latent that fires does so with 0.1, 0.2, 0.3 and 0.4."""
    values = (0.1, 0.2, 0.3, 0.4)
    alive = range(WIDTHS[sae] - 1)
    return [{"sae": sae, "latent": n, "row": 0, "position": place, "value": value} for n in alive for place, value in enumerate(values)]


def context_rows(sae: str) -> list[Row]:
    """Return the rows of `contexts`: in each split, latent 0 has two activating windows and a random one, latent 1 one that activates."""
    strong = {"kind": "activating", "quantile": 0, "tokens": [0, 1, 2, 3], "activations": [0.1, 0.4, 0.0, 0.0]}
    weak = {"kind": "activating", "quantile": 1, "tokens": [4, 5, 6, 7], "activations": [0.0, 0.0, 0.3, 0.0]}
    silent = {"kind": "random", "quantile": None, "tokens": [7, 6, 5, 4], "activations": [0.0] * 4}
    of = {0: (strong, weak, silent), 1: (weak,)}
    found = [(latent, split, number, row) for latent in of for split in ("test", "train") for number, row in enumerate(of[latent])]
    return [{"sae": sae, "latent": n, "split": split, "example": number, "start": number * 4, **row} for n, split, number, row in found]


def explanation_rows(sae: str) -> list[Row]:
    """Return the rows of `explanations`: two explainers, the baseline of one of them, and a latent that has no explanation."""
    told = {"model": "small/model", "engine": "openai", "response": f"[EXPLANATION]: {TEXTS[2]}", "prompt_tokens": 5}
    rows = [
        {"latent": 0, "explainer": "default", "text": TEXTS[2], **told},
        {"latent": 0, "explainer": "lexical", "text": TEXTS[0], "engine": "lexical"},
        {"latent": 0, "explainer": "lexical-permuted", "text": TEXTS[1], "source_latent": 1, "engine": "lexical"},
        {"latent": 1, "explainer": "lexical", "text": TEXTS[1], "source_latent": 1, "engine": "lexical"},
        {"latent": 2, "explainer": "lexical", "text": None, "status": "no windows", "engine": "lexical"},
    ]
    return [{"sae": sae, "sample": 0, "status": "ok", "source_latent": 0, **row} for row in rows if row["latent"] < WIDTHS[sae]]


def score_rows(sae: str) -> list[Row]:
    """Return the rows of `scores`: of explanations, of the baseline, one without a score, and one of no explanation."""
    balanced = {"unit": "balanced accuracy", "chance": 0.5, "judge": "lexical", "negatives": "random"}
    asked = {**balanced, "model": "judge/model", "judge": "big", "negatives": "pool"}
    rows = [
        {"explainer": "default", "scorer": "detection", "score": 0.1 + 0.2, "score_se": 1 / 3, "n": 4, "n_failed": 1, **asked},
        {"explainer": "lexical", "scorer": "detection", "score": 0.75, "n": 3, "n_failed": 0, **balanced},
        {"explainer": "lexical", "scorer": "simulation", "score": -0.25, "unit": "correlation", "judge": "lexical", "negatives": "none"},
        {"explainer": "lexical", "scorer": "surprisal", "status": "constant truth", "score": None, "unit": "AUROC"},
        {"explainer": "lexical-permuted", "scorer": "detection", "score": 0.5, **balanced},
        {"explainer": "none", "scorer": "intruder", "score": 0.9, "unit": "accuracy", "judge": "lexical", "negatives": "internal"},
    ]
    return [{"sae": sae, "latent": 0, "status": "ok", **row} for row in rows]


def judgement_rows(sae: str, explainer: str) -> list[Row]:
    """Return the rows of `judgements` of an explainer by detection: three windows, and of `default` a fourth one, of the pool."""
    scorer = {"scorer": "detection", "judge": "big" if explainer == "default" else "lexical"}
    asked = {"negatives": "pool" if explainer == "default" else "random", "status": "ok", **scorer}
    truth, answers = [True, True, False], [True, False, None]
    rows = [{"example": n, "truth": right, "answer": said} for n, (right, said) in enumerate(zip(truth, answers, strict=True))]
    if explainer == "default":
        rows.append({"example": 3 + 1, "truth": False, "answer": False, "probability": 0.25})
    return [{"sae": sae, "latent": 0, "explainer": explainer, **asked, **row} for row in rows]


def write(root: Path) -> Release:
    """Write the release in the folder *root* and return it; its judgements lie in a file for each explainer, as in real ones."""
    vocabulary = [{"subject": "lab", "token": number, "piece": piece} for number, piece in enumerate(PIECES)]
    subject = {"subject": "lab", "layers": 4, "width": 8}
    files: dict[Table, list[list[Row]]] = {
        SAES: [dictionary_rows()],
        SUBJECTS: [[subject]],
        VOCABULARY: [vocabulary],
        LATENTS: [[row for sae in WIDTHS for row in latent_rows(sae)]],
        CONTEXTS: [context_rows(sae) for sae in WIDTHS],
        POOL: [[{"sae": SAE, "window": n, "tokens": [n] * 4} for n in range(2)]],
        ACTIVATIONS: [activation_rows(sae) for sae in WIDTHS],
        EXPLANATIONS: [[row for sae in WIDTHS for row in explanation_rows(sae)]],
        SCORES: [score_rows(SAE)],
        JUDGEMENTS: [judgement_rows(SAE, explainer) for explainer in ("lexical", "default")],
    }
    for table, parts in files.items():
        for number, rows in enumerate(parts):
            write_parquet(root / f"{table.name}/train-{number:05d}-of-{len(parts):05d}.parquet", table, [rows_of(table, *rows)])
    write_contents(root, "mine", "1.2.0", files)
    return open_release(root)


def own_rows(release: Release, table: Table, keep: Any) -> pa.Table:
    """Return the rows of dictionary SAE that *keep*, an expression of Arrow, lets through, in key order."""
    return table.sort(release.read(table.name, filters=keep))


def np_pieces() -> npt.NDArray[np.object_]:
    """Return PIECES as exports take them."""
    return np.array(PIECES, dtype=object)
