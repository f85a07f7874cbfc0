"""What steering vectors are made of. One whole reading of each text, with plain hooks of torch, is the reference."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recurrent import ARCHITECTURES, LAYERS, VOCABULARY, WIDTH, tiny
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from builders.errors import UserError
from builders.steering.asking import Prompt
from builders.steering.vectors import (
    MATCHING,
    METHODS,
    OTHER,
    Contrast,
    Directions,
    Labels,
    alike,
    contrast,
    difference,
    discriminant,
    labels_of,
    random_like,
)
from builders.subjects.states import Parts, advance, family_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

pytestmark = pytest.mark.numeric

DRAW = np.random.default_rng(0)
PROMPTS = [
    Prompt(tuple(DRAW.integers(3, VOCABULARY, length).tolist()), *DRAW.permutation(6)[:2].tolist(), "") for length in (9, 6, 9, 1, 6, 9)
]
BATCHES = (1, 2, 3, 4, 7, 256)
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """Return a random model of one of the architectures."""
    return tiny(request.param)


@torch.no_grad()
def stream_after(model: PreTrainedModel, text: tuple[int, ...]) -> Tensor:
    """Return the output of every block [layers, width] at the last token of *text*, read alone and at once."""
    base: Any = model.base_model
    outputs: list[Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        outputs.append((output[0] if isinstance(output, tuple) else output)[0, -1])

    handles = [block.register_forward_hook(keep) for block in getattr(base, "blocks", None) or base.layers]
    model(input_ids=torch.tensor([text]), use_cache=False)
    for handle in handles:
        handle.remove()
    return torch.stack(outputs)


def state_after(model: PreTrainedModel, text: tuple[int, ...]) -> list[Parts]:
    """Return the state of every layer after *text*, read alone and at once."""
    memory = advance(model, torch.tensor([text]))[1]
    return [{name: part[0] for name, part in family_of(model).parts(memory, layer).items()} for layer in range(LAYERS)]


def texts(prompt: Prompt) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the prompt with the matching and with the other letter."""
    return (*prompt.ids, prompt.matching), (*prompt.ids, prompt.other)


class TestContrast:
    """What a model carries after either answer."""

    def test_the_stream_is_that_of_whole_texts(self, model: PreTrainedModel) -> None:
        """Block outputs are those at the letter, matching first, in the order of the prompts though these differ in length."""
        found = contrast(model, PROMPTS, 4).residual
        assert found.shape == (len(PROMPTS), 2, LAYERS, WIDTH)
        close(found, torch.stack([torch.stack([stream_after(model, text) for text in texts(prompt)]) for prompt in PROMPTS]))

    def test_the_state_is_the_mean_difference(self, model: PreTrainedModel) -> None:
        """Every part of every layer is the mean over prompts of what it is after the matching letter minus after the other."""
        both = [[state_after(model, text) for text in texts(prompt)] for prompt in PROMPTS]
        expected = [
            {name: torch.stack([pair[MATCHING][layer][name] - pair[OTHER][layer][name] for pair in both]).mean(0) for name in parts}
            for layer, parts in enumerate(both[0][0])
        ]
        found = difference(contrast(model, PROMPTS, 4)).state
        close(found, expected)
        assert all(part.abs().max() > 1e-3 for parts in found for part in parts.values())

    def test_labels_and_weights_by_hand(self, model: PreTrainedModel) -> None:
        """Under every draw, stream and state are the weighted sum of all differences, with the sign of each pair's label."""
        signs, weights = np.array([[1.0] * 6, [1.0, -1, -1, 1, -1, 1]]), np.array([[1 / 6] * 6, [0.5, 0.1, 0.1, 0.1, 0.2, 0.0]])
        both = [[(stream_after(model, text), state_after(model, text)) for text in texts(prompt)] for prompt in PROMPTS]
        found = contrast(model, PROMPTS, 4, Labels(signs, weights))
        for draw, factors in enumerate(signs * weights):
            directions = difference(found, draw)
            close(directions.residual, sum(f * (one[0] - other[0]) for f, (one, other) in zip(factors, both, strict=True)))
            for layer, parts in enumerate(directions.state):
                for name, part in parts.items():
                    close(
                        part, sum(f * (one[1][layer][name] - other[1][layer][name]) for f, (one, other) in zip(factors, both, strict=True))
                    )

    @pytest.mark.parametrize("batch", BATCHES)
    def test_the_batch_does_not_matter(self, batch: int, model: PreTrainedModel) -> None:
        """However many rows are read at a time, pairs come out the same; one row is taken as one pair."""
        one, other = contrast(model, PROMPTS, batch), contrast(model, PROMPTS, 2)
        close(one.residual, other.residual)
        close(one.state, other.state)

    def test_swapped_letters_swap_the_answers(self, model: PreTrainedModel) -> None:
        """With matching and other exchanged, the sides of the stream are exchanged and the state's difference turns round."""
        found = contrast(model, PROMPTS, 4)
        turned = contrast(model, [Prompt(prompt.ids, prompt.other, prompt.matching, "") for prompt in PROMPTS], 4)
        close(turned.residual, found.residual.flip(1))
        close(turned.state, [{name: -part for name, part in parts.items()} for parts in found.state])

    def test_llama_has_no_state(self) -> None:
        """A transformer's layers have no parts."""
        assert contrast(tiny("llama"), PROMPTS[:1], 2).state == [{}] * LAYERS

    def test_one_letter_is_refused(self) -> None:
        """Where (A) always matches, nothing tells the behaviour from its letter: one line that says what helps."""
        said = r"every answer that matches the behaviour is \(A\), so its letter looks like .*`steering.orders: both`"
        with pytest.raises(UserError, match=said):
            labels_of([("A", "B")] * 3, np.ones((1, 3)))

    def test_permuted_labels_are_balanced_anew(self) -> None:
        """A pair whose label is exchanged counts as one that matches with the other letter."""
        labels = labels_of([("A", "B"), ("B", "A"), ("A", "B")], np.array([[1.0, 1, 1], [-1, 1, 1]]))
        np.testing.assert_allclose(labels.weights, [[0.25, 0.5, 0.25], [0.25, 0.25, 0.5]])

    def test_no_prompts(self) -> None:
        """Nothing to read is an error of ours."""
        with pytest.raises(ValueError, match="there is no contrast without prompts"):
            contrast(tiny("llama"), [], 2)


@given(st.lists(st.integers(1, 4), max_size=12), st.integers(1, 5))
def test_alike_is_of_one_length(lengths: list[int], most: int) -> None:
    """Every place comes once, with at most so many others, all of the same length, in rising order."""
    groups = list(alike([[0] * length for length in lengths], most))
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    assert all(group == sorted(group) and 1 <= len(group) <= most and len({lengths[place] for place in group}) == 1 for group in groups)


class TestDifference:
    """The difference of means."""

    def test_by_hand(self) -> None:
        """Two pairs, two layers, width 2: the mean after matching minus the mean after the other, as long as it comes."""
        matching = [[[1.0, 2.0], [0.0, 8.0]], [[3.0, 6.0], [4.0, 0.0]]]
        other = [[[0.0, 2.0], [2.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]]
        state: list[Parts] = [{"conv": torch.tensor([[7.0]])}, {}]
        found = difference(Contrast(torch.stack([torch.tensor(matching), torch.tensor(other)], dim=1), state, alike_labels(2)))
        assert found.residual.tolist() == [[2.0, 3.0], [1.0, 3.0]]
        assert found.state == [{"conv": torch.tensor([7.0])}, {}]

    def test_it_is_a_method_by_name(self) -> None:
        """Both methods have the names that rows carry."""
        assert {"difference": difference, "lda": discriminant} == METHODS


def alike_labels(pairs: int) -> Labels:
    """Return the true labels of *pairs* that count alike."""
    return Labels(np.ones((1, pairs)), np.full((1, pairs), 1 / pairs))


def gaussian(pairs: int, delta: Tensor, root: Tensor, seed: int = 0) -> Contrast:
    """Return pairs whose classes are *delta* apart, with the covariance *root* @ *root*ᵀ within each."""
    noise = torch.randn(pairs, 2, len(delta), generator=torch.Generator().manual_seed(seed)) @ root.T
    return Contrast((noise + torch.stack([delta / 2, -delta / 2]))[:, :, None], [{}], alike_labels(pairs))


def shrunk(samples: Tensor) -> np.ndarray[Any, Any]:
    """Return the Ledoit-Wolf covariance of *samples* [n, width] in units of their standard deviations, and back."""
    scale = samples.numpy().std(0)
    found: np.ndarray[Any, Any] = np.outer(scale, scale) * ledoit_wolf((samples.numpy() - samples.numpy().mean(0)) / scale)[0]
    return found


def cosine(one: Any, other: Any) -> float:
    """Return the cosine of the angle between two vectors."""
    return float(torch.nn.functional.cosine_similarity(torch.as_tensor(one).double(), torch.as_tensor(other).double(), dim=0))


class TestDiscriminant:
    """Fisher's linear discriminant."""

    ROOT = torch.tensor([[2.0, 0.0, 0.0], [1.8, 0.6, 0.0], [0.0, 0.0, 1.0]])  # the first two dimensions go together
    DELTA = torch.tensor([1.0, 0.2, 0.5])

    def test_the_known_direction(self) -> None:
        """With many pairs it is Σ⁻¹δ, which is neither δ nor what the variances alone give, and as long as the mean difference."""
        found = gaussian(20_000, self.DELTA, self.ROOT)
        (direction,) = discriminant(found).residual
        sigma = self.ROOT @ self.ROOT.T
        assert cosine(direction, torch.linalg.solve(sigma, self.DELTA)) > 0.999
        assert cosine(direction, self.DELTA) < 0.9
        assert cosine(direction, self.DELTA / sigma.diag()) < 0.9
        assert direction.dtype == torch.float32
        close(direction.norm(), difference(found).residual[0].norm())

    def test_the_covariance_is_within_classes(self) -> None:
        """With more dimensions than pairs it is what each class's own Ledoit-Wolf covariance gives, not that of both together.

        Without shrinkage no test could tell: the inverses of both take the mean difference to the same line.
        """
        root = torch.randn(10, 10, generator=torch.Generator().manual_seed(1))
        found = gaussian(8, 30 * torch.eye(10)[0] + 1, root)
        mean = difference(found).residual[0].double().numpy()
        matching, other = found.residual[:, MATCHING, 0], found.residual[:, OTHER, 0]
        within = np.linalg.solve((shrunk(matching) + shrunk(other)) / 2, mean)
        total = np.linalg.solve(shrunk(torch.cat([matching, other])), mean)
        (direction,) = discriminant(found).residual
        assert cosine(direction, within) > 1 - 1e-6
        assert cosine(direction, total) < 0.6
        assert cosine(direction, mean) < 0.97

    def test_layers_are_apart_and_without_state(self) -> None:
        """Each layer has the direction that it has alone, and none has a state, whatever the contrast has."""
        layers = [gaussian(40, self.DELTA * scale, self.ROOT, seed) for seed, scale in enumerate((1.0, -3.0))]
        both = Contrast(torch.cat([one.residual for one in layers], dim=2), [{"conv": torch.ones(1, 2)}, {}], layers[0].labels)
        found = discriminant(both)
        close(found.residual, torch.cat([discriminant(one).residual for one in layers]))
        assert found.state == [{}, {}]

    def test_it_points_towards_matching(self) -> None:
        """Turned the other way round, the answers turn the direction round."""
        found = gaussian(40, self.DELTA, self.ROOT)
        turned = Contrast(found.residual.flip(1), found.state, found.labels)
        close(discriminant(turned).residual, -discriminant(found).residual)
        exchanged = Contrast(found.residual, found.state, Labels(-found.labels.signs, found.labels.weights))
        close(discriminant(exchanged).residual, -discriminant(found).residual)
        assert (discriminant(found).residual * difference(found).residual).sum() > 0

    def test_a_real_contrast(self) -> None:
        """On what a model carries, with fewer pairs than dimensions, every layer's direction is finite and as long as the difference."""
        found = contrast(tiny("mamba2"), PROMPTS, 4)
        close(discriminant(found).residual.norm(dim=-1), difference(found).residual.norm(dim=-1))

    def test_one_pair_is_refused(self) -> None:
        """A single pair has no covariance: one line that says so."""
        with pytest.raises(UserError, match=r"^vectors by lda cannot be made from a single question; give more questions, or leave .*$"):
            discriminant(gaussian(1, self.DELTA, self.ROOT))

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_numbers_that_are_not_finite_are_refused(self, value: float) -> None:
        """A stream that went beyond its number format has no covariance either: one line that says so."""
        found = gaussian(4, self.DELTA, self.ROOT)
        found.residual[2, OTHER, 0, 1] = value
        with pytest.raises(UserError, match=r"^the residual stream holds numbers that are not finite; run the subject in float32, or .*$"):
            discriminant(found)

    def test_equal_answers_have_no_direction(self) -> None:
        """Where both answers leave the same behind, the vector is zero, and no division by its length."""
        found = gaussian(4, self.DELTA, self.ROOT)
        found.residual[:, OTHER] = found.residual[:, MATCHING]
        assert discriminant(found).residual.tolist() == [[0.0, 0.0, 0.0]]


class TestRandom:
    """Directions that mean nothing."""

    def test_they_are_as_long_and_as_empty(self) -> None:
        """Every vector has the length of its example, points elsewhere, and is zero where that is zero; the seed decides."""
        state = [{"conv": torch.tensor([[0.0, 3.0], [0.0, 4.0]])}, {}]
        like = Directions(torch.randn(2, 500, generator=torch.Generator().manual_seed(0)), state)
        found = random_like(like, 1)
        close(found.residual.norm(dim=1), like.residual.norm(dim=1))
        close(found.state[0]["conv"].norm(), torch.tensor(5.0))
        assert found.state[0]["conv"][:, 0].tolist() == [0, 0]
        assert found.state[1] == {}
        assert abs(cosine(found.residual[0], like.residual[0])) < 0.2
        assert torch.equal(random_like(like, 1).residual, found.residual)
        assert not torch.equal(random_like(like, 2).residual, found.residual)
