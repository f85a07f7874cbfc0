"""What stage `agreement` knows of scorers from params."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from project import small_params, write_params

from pipelines.params import load
from pipelines.stages.agreement import facts_of

if TYPE_CHECKING:
    from pathlib import Path

SCORERS = {
    "detection": {"kind": "detection", "judge": "words"},
    "detection-near": {"kind": "detection", "judge": "words", "negatives": "decoder", "latents": 7},
    "fuzzing": {"kind": "fuzzing", "judge": "words", "negatives": "active"},
    "scattered": {"kind": "fuzzing", "judge": "words", "marks": "random"},
    "short": {"kind": "simulation", "judge": "words", "windows": 5},
    "long": {"kind": "simulation", "judge": "words", "windows": 9, "negatives": "decoder"},
}


def test_scorers_of_a_family_differ_in_negatives_and_latents_alone(tmp_path: Path) -> None:
    """Against other negatives, otherwise marked, on fewer latents, scorers are of one family; with other windows they are not."""
    params = {**small_params(), "judges": {"words": {"kind": "lexical"}}, "scorers": SCORERS, "direct_scorers": {}}
    params["contexts"]["negatives"] = {"decoder": 3}
    write_params(tmp_path, params)
    rows = [{"scorer": name, "unit": "x", "chance": 0.5} for name in SCORERS]
    facts = facts_of(load(tmp_path / "params.yaml"), pd.DataFrame([*rows, *rows]))
    families = {scorer: known.family for scorer, known in facts.items()}

    assert {scorer: (known.unit, known.chance) for scorer, known in facts.items()} == dict.fromkeys(SCORERS, ("x", 0.5))
    assert facts["detection-near"].negatives == "decoder"
    assert (facts["fuzzing"].negatives, facts["scattered"].negatives) == ("active borrowed", "random random")
    assert families["detection"] == families["detection-near"]
    assert families["fuzzing"] == families["scattered"]
    assert len(set(families.values())) == 4
