"""What lenses read at which depth, on the card: figures and tables of hand-made rows."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from lens_rows import BITS, LAST, LOGIT, TUNED, curve, row
from rows import rows_of

from builders.lenses.convergence import LENS_TRAINING
from builders.lenses.decisions import LENS_DECISIONS
from builders.lenses.lenses import LENSES
from cards.lenses import (
    behind_logit,
    by_decision,
    compared_layers,
    curve_records,
    decision_records,
    lens_facts,
    published_records,
    rising_layers,
    shown_layers,
)
from cards.render import render

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]


def frame_of(*rows: Row) -> pd.DataFrame:
    """Return LENSES rows as a frame."""
    frame: pd.DataFrame = rows_of(LENSES, *rows).to_pandas()
    return frame


def training(*rows: Row) -> pd.DataFrame:
    """Return LENS_TRAINING rows of the tuned lens as a frame."""
    frame: pd.DataFrame = rows_of(LENS_TRAINING, *({"subject": "one", "lens": "tuned"} | row for row in rows)).to_pandas()
    return frame


def decision(subject: str, lens: str, frequency: str, depth: float) -> Row:
    """Return a LENS_DECISIONS row with an error of 0.01 and a chance of 0.9."""
    return {"subject": subject, "lens": lens, "frequency": frequency, "depth": depth, "depth_se": 0.01, "chance": 0.9, "n": 500}


def told(lenses: list[Row], decisions: list[Row] | None = None, slopes: list[Row] | None = None) -> str:
    """Return the card's section on these rows."""
    read: dict[str, pa.Table] = {
        "lenses": rows_of(LENSES, *lenses),
        "lens_training": rows_of(LENS_TRAINING, *({"subject": "one", "lens": "tuned"} | row for row in slopes or [])),
        "lens_decisions": rows_of(LENS_DECISIONS, *(decisions or [])),
    }
    facts = lens_facts(read)
    json.dumps(facts, allow_nan=False)  # it goes into metrics.json
    return render("lenses.md.j2", facts)


def cells(text: str, *begins: str) -> list[str]:
    """Return the cells of the first line of a table that begins with these cells."""
    line = next(line for line in text.splitlines() if line.startswith("| " + " | ".join(begins) + " |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


# Figures


@pytest.mark.parametrize(("last", "layers"), [(1, [0, 0, 0, 0, 0]), (4, [0, 1, 2, 3, 3]), (6, [0, 1, 3, 4, 5]), (24, [0, 6, 12, 18, 23])])
def test_layers_at_quarters_are_shown(last: int, layers: list[int]) -> None:
    """Depths 0, ¼, ½ and ¾ are rounded down to whole blocks; the last but one is always there."""
    assert shown_layers(last) == layers


def test_figures_are_in_bits_with_errors() -> None:
    """A record has values and errors in bits per byte, the model's own cross-entropy, and what a constant distribution has."""
    (record,) = curve_records(frame_of(*LOGIT))

    assert [point["value"] for point in record["ce"]] == [4.5, 3, 2, 1.5, 1.5]
    assert [point["value"] for point in record["kl"]] == [3.5, 2, 1, 0.5, 0.5]
    assert record["ce"][0]["se"] == pytest.approx(0.1)
    assert (record["model"], record["chance"], record["layers"], record["n"]) == (1, {"ce": 4, "kl": 3}, LAST, 1000)


def test_a_single_row_has_no_error() -> None:
    """Where a table has no standard error, neither has the record."""
    (record,) = curve_records(frame_of(*curve("logit", 9, 6, 4, 3, 2, ce_se=None)))

    assert record["ce"][0] == {"value": 4.5, "se": None}


def test_lenses_have_their_order() -> None:
    """Subjects are in order of their names, and lenses from the simplest on; one that nobody foresaw comes last."""
    rows = [
        one
        for lens in ("own", "jacobian", "tuned", "logit")
        for subject in ("two", "one")
        for one in curve(lens, 3, 3, 3, 3, 2, subject=subject)
    ]
    order = [(record["subject"], record["lens"]) for record in curve_records(frame_of(*rows))]

    assert order == [(subject, lens) for subject in ("one", "two") for lens in ("logit", "tuned", "jacobian", "own")]


def test_published_models_are_the_smallest_of_their_families() -> None:
    """They are shown at the same depths, with nothing where their files have nothing."""
    records = {(record["subject"], record["lens"]): record for record in published_records()}
    mamba, rwkv = records["mamba/130m", "tuned"], records["rwkv/169m", "logit"]

    assert {subject for subject, _ in records} == {"mamba/130m", "pythia/160m", "rwkv/169m"}
    assert [point["value"] for point in mamba["ce"]] == [None, 3.32, 2.51, 1.9, 1.06]
    assert [point["value"] for point in mamba["kl"]] == [None, 2.44, 1.63, 1.02, 0.175]
    assert [point["value"] for point in rwkv["ce"]] == [None, 4.24, 2.43, 1.88, 1.39]
    assert [point["value"] for point in rwkv["kl"]] == [None] * 5


# Where a lens fails


def test_layers_at_which_tuning_does_not_help_are_named() -> None:
    """A layer whose tuned lens is no better is listed in bits, with the slope of its own training; the last layer does not count."""
    frame = frame_of(*LOGIT, *TUNED)
    (found,) = behind_logit(frame, training({"step": 10, "layer": 2, "slope": -0.3}, {"step": 10, "layer": 1, "slope": -0.1}))

    assert (found["subject"], found["layer"], found["tuned"], found["logit"], found["slope"]) == ("one", 2, 2.25, 2, -0.3)
    assert found["error"] == pytest.approx(math.sqrt(2) * 0.2 * BITS)
    assert compared_layers(frame) == [{"subject": "one", "layers": 4, "better": 3}]


def test_an_equal_lens_is_no_better() -> None:
    """A translator that learned nothing equals the logit lens, and this is told; without a trace of training it has no slope."""
    frame = frame_of(*LOGIT, *curve("tuned", 9, 5, 3, 2.5, 2))

    assert [(found["layer"], found["slope"]) for found in behind_logit(frame, training())] == [(0, None)]


def test_slopes_are_those_of_the_subject() -> None:
    """Two subjects with the same layers do not share their slopes."""
    rows = [*LOGIT, *TUNED, *curve("logit", 9, 6, 4, 3, 2, subject="two"), *curve("tuned", 5, 4, 4.5, 2.5, 2, subject="two")]
    slopes = training({"step": 1, "layer": 2, "slope": -1.0}, {"step": 1, "layer": 2, "slope": -2.0, "subject": "two"})

    assert {found["subject"]: found["slope"] for found in behind_logit(frame_of(*rows), slopes)} == {"one": -1, "two": -2}


def test_rising_divergences_are_named() -> None:
    """A divergence that grows from one layer to the next is told with its layer and size; one that stays as it is does not grow."""
    rows = [row("tuned", layer, 3, kl) for layer, kl in enumerate((4, 2, 3, 3, 0))]

    assert rising_layers(frame_of(*LOGIT)) == []
    assert rising_layers(frame_of(*rows)) == [{"subject": "one", "lens": "tuned", "layers": [2], "most": 0.5}]


# Decisions


def test_subjects_are_told_from_the_earliest_decision_on() -> None:
    """They are compared by the tuned lens, or by the logit lens where none was trained."""
    rows = [
        decision(subject, lens, "all", depth) for subject, lens, depth in (("a", "logit", 0.1), ("a", "tuned", 0.8), ("b", "tuned", 0.5))
    ]
    both = decision_records(rows_of(LENS_DECISIONS, *rows).to_pandas())
    plain = decision_records(rows_of(LENS_DECISIONS, rows[0]).to_pandas())

    assert [row["subject"] for row in by_decision(both)] == ["b", "a"]
    assert [(row["subject"], row["lens"]) for row in by_decision(plain)] == [("a", "logit")]
    assert by_decision([]) == []


# Words


def test_the_section_shows_every_curve() -> None:
    """A line has the five values with their errors, the model's own and chance; published lines have no error."""
    text = told([*LOGIT, *TUNED])

    assert cells(text, "one", "logit")[3:] == [
        "4.50 ± 0.1",
        "3.00 ± 0.1",
        "2.00 ± 0.1",
        "1.50 ± 0.1",
        "1.50 ± 0.1",
        "1.00",
        "4.00",
        "1,000",
    ]
    assert cells(text, "published, pythia/160m", "logit")[3:] == ["5.09", "3.06", "2.28", "1.50", "1.10", "0.831", "–", "–"]
    assert text.count("published, rwkv/169m") == 2  # its divergences are of other layers


def test_the_section_names_what_failed() -> None:
    """It counts the layers at which tuning helps, lists the others with their slope, and says where the divergence grows."""
    text = told([*LOGIT, *TUNED], slopes=[{"step": 10, "layer": 2, "slope": -0.3}])

    assert "lower cross-entropy than the logit lens: one 3 of 4." in text
    assert cells(text, "one", "2") == ["one", "2", "2.25", "2.00", "0.250 ± 0.1", "-0.3"]
    assert "The divergence falls with every layer, except at layer 2 of one (tuned, by at most 0.25)." in text


def test_the_section_says_what_went_well() -> None:
    """Without a failure there is no list of failures."""
    text = told([*LOGIT, *curve("tuned", 5, 4, 3.5, 2.5, 2)])

    assert "one 4 of 4." in text
    assert "The divergence falls with every layer, of every subject and lens." in text
    assert "no better here" not in text


def test_a_lens_that_reads_ahead_says_so() -> None:
    """Its vectors are of an earlier position, which the text tells; without such a lens it does not."""
    ahead = told([*LOGIT, *curve("jacobian-state", 9, 8, 7, 6, 5, ahead=1)])

    assert "jacobian-state reads vectors 1 position before the one" in ahead
    assert "jacobian-state" not in told(LOGIT)


def test_decisions_are_told_by_frequency() -> None:
    """A line has all tokens, chance and the quarters; a quarter that no token is in has a dash."""
    text = told(LOGIT, [decision("one", "tuned", name, depth) for name, depth in (("all", 0.7), ("q1", 0.9), ("q2", 0.8), ("q4", 0.5))])

    assert cells(text, "one", "tuned") == [
        "one",
        "tuned",
        "0.700 ± 0.01",
        "0.900",
        "0.900 ± 0.01",
        "0.800 ± 0.01",
        "–",
        "0.500 ± 0.01",
        "500",
    ]
    assert "By the tuned lens, from the earliest on: one at 0.700 ± 0.01." in text


def test_without_lenses_there_is_no_section() -> None:
    """A release without lenses says nothing about them, not even what others published."""
    assert told([]).strip() == ""
