"""Half-ranges beside those of vectors that mean nothing, from effects that are made up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from builders.steering.effects import Setting
from builders.steering.nulls import null_pushes, null_vectors
from builders.steering.ranges import PERMUTED, RANDOM, STEERING_RANGES, Sheet, best_layers, moved, range_rows
from builders.steering.vectors import METHODS, Contrast, labels_of
from builders.steering.ways import Push
from builders.steering.weights import coins

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

SETTING = Setting("lab", "bold", 40, 1, "Q: {question} A: (", "letters")
AB, BA = ("A", "B"), ("B", "A")
LAYERS = (0, 1, 2)
SHEET = Sheet(np.arange(8), np.arange(8) < 4, [AB, BA] * 4)  # the first four questions choose


def pushes(method: str = "difference", site: str = "residual", phase: str = "late") -> list[Push]:
    """Return pushes by −1, ½ and 1 at every layer."""
    return [Push(method, site, layer, multiplier, phase) for layer in LAYERS for multiplier in (-1.0, 0.5, 1.0)]


def effects(validation: Sequence[float], test: Sequence[float]) -> Floats:
    """Return effects [8, pushes] that are the multiplier times a number for each layer, one for each half."""
    half = np.repeat([validation, test], 4, axis=0)
    return np.concatenate([half[:, [layer]] * np.array([-1.0, 0.5, 1.0]) for layer in LAYERS], axis=1)


def rows(real: Floats, nulls: Mapping[tuple[str, str], Any] | None = None, sheet: Sheet = SHEET) -> dict[tuple[str, int], dict[str, Any]]:
    """Return STEERING_RANGES rows by choice and layer; choices of one layer by -1."""
    found = range_rows(SETTING, sheet, (pushes(), real), nulls or {}, 0)
    STEERING_RANGES.validate(found)
    return {(row["choice"], row["layer"] if row["choice"] == "layer" else -1): row for row in found.to_pylist()}


class TestChoices:
    """Which layer is told."""

    def test_by_hand(self) -> None:
        """Every layer has its half-range on the test half; best is the signed best of the other half, largest the one furthest from 0."""
        found = rows(effects((0.05, 0.1, -0.3), (0.04, 0.02, -0.25)))
        assert [found["layer", layer]["half_range"] for layer in LAYERS] == pytest.approx([0.04, 0.02, -0.25])
        assert (found["best", -1]["layer"], found["best", -1]["half_range"]) == (1, pytest.approx(0.02))
        assert (found["largest", -1]["layer"], found["largest", -1]["half_range"]) == (2, pytest.approx(-0.25))
        assert found["best", -1]["multiplier"] == 1.0
        assert found["best", -1]["n"] == 4

    def test_best_layers_by_way(self) -> None:
        """Each way has its own best layer; of equal ones the first, and none where nothing of the validation half is there."""
        sides = {"residual": (0.1, 0.2, 0.2), "state": (0.0, 0.0, 0.3), "conv": (np.nan, np.nan, np.nan)}
        some = [push for site in sides for push in pushes(site=site)]
        values = np.concatenate([effects(validation, (0.4, 0.0, 0.0)) for validation in sides.values()], axis=1)
        found = best_layers(range_rows(SETTING, SHEET, (some, values), {}, 0))
        assert found == {("difference", "residual", "none"): 1, ("difference", "state", "late"): 2}

    def test_against_the_multipliers_loses(self) -> None:
        """A layer that goes against its multipliers loses to one that goes a little along, however far it goes."""
        assert best_layers(range_rows(SETTING, SHEET, (pushes(), effects((-0.4, 0.01, 0.0), (0, 0, 0))), {}, 0)).popitem()[1] == 1

    def test_as_the_paper_reads_it(self) -> None:
        """For each multiplier apart the layer that does best on all questions: up at layer 1, down at layer 0."""
        real = effects((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
        real[:, 1 * 3 + 2] = 0.2  # layer 1, up
        real[:, 0 * 3 + 0] = -0.1  # layer 0, down
        found = rows(real)["paper", -1]
        assert (found["layer"], found["half_range"], found["n"]) == (-1, pytest.approx(0.15), 8)

    def test_a_multiplier_without_its_opposite(self) -> None:
        """Where only one sign was tried, its effect along that sign stands for the half-range."""
        some = [Push("difference", "state", 0, -2.0), Push("difference", "state", 0, -1.0)]
        found = moved(some, np.array([[-0.3, -0.1], [-0.1, 0.4]]))
        assert found.both.tolist() == [[0.3], [0.1]]


class TestLetters:
    """Letters are no behaviour."""

    def test_a_push_towards_a_letter_is_told(self) -> None:
        """What moves only questions that match with (B) has a half-range, but the smallest over letters is 0."""
        real = effects((0.1, 0.1, 0.1), (0.2, 0.2, 0.2)) * np.array([0, 1] * 4)[:, None]
        found = rows(real)["best", -1]
        assert found["half_range"] == pytest.approx(0.1)
        assert (found["letter_low"], found["letter_high"]) == (pytest.approx(0.0), pytest.approx(0.2))

    def test_letters_count_alike(self) -> None:
        """With three questions (A) and one (B), a push towards (A) is no half-range."""
        sheet = Sheet(np.arange(8), np.arange(8) < 4, [AB, AB, AB, BA] * 2)
        real = effects((0.1, 0.1, 0.1), (0.1, 0.1, 0.1)) * np.array([1, 1, 1, -1] * 2)[:, None]
        assert rows(real, sheet=sheet)["layer", 0]["half_range"] == pytest.approx(0, abs=1e-12)


class TestNulls:
    """The same procedure with vectors that mean nothing."""

    @staticmethod
    def nulls(*draws: tuple[Sequence[float], Sequence[float]], kind: str = PERMUTED) -> dict[tuple[str, str], Any]:
        """Return the effects of null vectors, one for each of *draws* (validation and test half by layer)."""
        names = [f"{kind} {number}" for number in range(len(draws))]
        some = [Push(name, push.site, push.layer, push.multiplier, push.phase) for name in names for push in pushes()]
        return {(kind, "difference"): (some, np.concatenate([effects(*draw) for draw in draws], axis=1))}

    def test_each_draw_chooses_its_own_layer(self) -> None:
        """The band of the best layer is made of what each draw's own best layer does; that of a layer, of what that layer does."""
        nulls = self.nulls(((0.3, 0.0, 0.0), (0.1, 0.0, 0.0)), ((0.0, 0.0, 0.3), (0.0, 0.5, -0.2)))
        found = rows(effects((0.0, 0.3, 0.0), (0.0, 0.4, 0.0)), nulls)
        best, layer = found["best", -1], found["layer", 1]
        assert (best["permuted_low"], best["permuted_high"], best["permuted_draws"]) == (pytest.approx(-0.2), pytest.approx(0.1), 2)
        assert best["permuted_sd"] == pytest.approx(np.std([-0.2, 0.1], ddof=1))
        assert (layer["permuted_low"], layer["permuted_high"]) == (pytest.approx(0.0), pytest.approx(0.5))
        assert (best["clear"], layer["clear"]) == (True, False)
        assert (best["p"], layer["p"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))

    def test_a_large_effect_of_the_wrong_sign_is_clear_too(self) -> None:
        """What lies below all of the band is as clear as what lies above it, and its sign is told."""
        found = rows(effects((-0.3, 0.0, 0.0), (-0.3, 0.0, 0.0)), self.nulls(((0.1, 0, 0), (0.1, 0, 0)), ((0.1, 0, 0), (-0.2, 0, 0))))
        assert (found["largest", -1]["half_range"], found["largest", -1]["clear"]) == (pytest.approx(-0.3), True)

    def test_without_nulls_nothing_is_clear_or_not(self) -> None:
        """A way without null vectors has no band, no p and no verdict."""
        row = rows(effects((0.3, 0, 0), (0.3, 0, 0)))["best", -1]
        assert [row[name] for name in ("permuted_low", "random_high", "p", "clear")] == [None] * 4
        assert (row["permuted_draws"], row["random_draws"]) == (0, 0)

    def test_null_vectors_of_every_method(self) -> None:
        """Each method has its own permuted vectors; all share the random ones, which are as long."""
        residual = torch.randn(12, 2, 2, 6, generator=torch.Generator().manual_seed(0))
        labels = labels_of([AB, BA] * 6, coins(12, 3, 0))
        found = Contrast(residual, [{"ssm": torch.randn(4, 5)}, {}], labels)
        real = {method: METHODS[method](found) for method in ("difference", "lda")}
        nulls = null_vectors(found, real, random=2, seed=1)
        assert {key: len(some) for key, some in nulls.items()} == {
            (PERMUTED, "difference"): 3,
            (PERMUTED, "lda"): 3,
            (RANDOM, "difference"): 2,
            (RANDOM, "lda"): 2,
        }
        for some in nulls[RANDOM, "lda"].values():
            torch.testing.assert_close(some.residual.norm(dim=1), real["lda"].residual.norm(dim=1))
        assert not torch.allclose(nulls[PERMUTED, "difference"]["difference permuted 1"].residual, real["difference"].residual)

    def test_only_the_largest_multipliers_are_tried(self) -> None:
        """Null vectors go through the largest multiplier of either sign, at the sites that are asked for."""
        every = [*pushes(), *pushes(site="conv"), *pushes("lda")]
        some = null_pushes(["null 1", "null 2"], "difference", every, ["residual", "state"])
        assert some == [Push(name, "residual", layer, end) for name in ("null 1", "null 2") for layer in LAYERS for end in (-1.0, 1.0)]


def test_what_questions_may_have_made_is_not_clear() -> None:
    """A half-range outside of the band is clear only if it lies more than two of its standard errors from 0."""
    nulls = TestNulls.nulls(((0, 0, 0), (0.001, 0, 0)), ((0, 0, 0), (-0.001, 0, 0)))
    real = effects((0.1, 0, 0), (0.1, 0, 0))
    assert rows(real, nulls)["best", -1]["clear"]
    noise = np.array([1, -1, -1, 1] * 2)[:, None] * 0.9  # of both letters
    assert not rows(real + noise * (np.abs(real) > 0) * np.sign(real), nulls)["best", -1]["clear"]


def test_half_ranges_have_the_error_of_a_paired_bootstrap() -> None:
    """Where both ends move together, question by question, the error is that of their half difference, not the mean of both errors."""
    generator, count = np.random.default_rng(0), 400
    shift, noise = generator.normal(0, 1, count), generator.normal(0, 0.1, count)
    sheet = Sheet(np.arange(2 * count), np.arange(2 * count) < count, [AB, BA] * count)
    some = [Push("difference", "residual", 0, -1.0), Push("difference", "residual", 0, 1.0)]
    values = np.concatenate([np.zeros((count, 2)), np.stack([shift - noise, shift + noise], axis=1)]) / 10
    (row,) = [row for row in range_rows(SETTING, sheet, (some, values), {}, 0).to_pylist() if row["choice"] == "layer"]
    assert row["half_range_se"] == pytest.approx(0.01 / np.sqrt(count), rel=0.15)
