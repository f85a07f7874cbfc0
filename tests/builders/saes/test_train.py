"""The trainer, on vectors that are sums of a few planted directions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn import functional as F

from builders.saes.coder import JumpReLU, ReLU, SparseCoder, TopK
from builders.saes.train import Recipe, Trainer
from builders.subjects.harvest import shuffled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

pytestmark = pytest.mark.numeric

D, PLANTED, ACTIVE, BATCH, STEPS = 16, 24, 2, 256, 400
TOPK = Recipe(activation="topk", width=32, k=ACTIVE, lr=5e-3, dead_after=10_000)
RECIPES = {
    "topk": TOPK,
    "multi_topk": replace(TOPK, multi_topk=True),
    "jumprelu": replace(TOPK, activation="jumprelu"),
    "relu": replace(TOPK, activation="relu", k=0, l1=0.2, lr=1e-2),
}
WEIGHTS = ("w_enc", "b_enc", "w_dec", "b_dec", "b_pre")
kinds = pytest.mark.parametrize("kind", RECIPES)


def directions() -> Tensor:
    """Return the planted dictionary: unit vectors."""
    return F.normalize(torch.randn(PLANTED, D, generator=torch.Generator().manual_seed(100)), dim=1)


def planted(seed: int, batches: int, scale: float = 1.0) -> Iterator[Tensor]:
    """Yield batches of sums of ACTIVE planted directions, each between 1 and 2 long, shifted by a constant."""
    generator = torch.Generator().manual_seed(seed)
    dictionary = directions()
    for _ in range(batches):
        chosen = torch.rand(BATCH, PLANTED, generator=generator).topk(ACTIVE, dim=1).indices
        lengths = 1 + torch.rand(BATCH, ACTIVE, generator=generator)
        yield scale * ((dictionary[chosen] * lengths[..., None]).sum(1) + 0.3)


def train(recipe: Recipe, batches: Iterator[Tensor], steps: int, seed: int = 7) -> SparseCoder:
    """Return an SAE trained on *batches*, *steps* of them."""
    first = next(batches)
    trainer = Trainer(recipe, first, steps, torch.Generator().manual_seed(seed))
    trainer.step(first)
    for batch in batches:
        trainer.step(batch)
    return trainer.coder()


def fvu(coder: SparseCoder, x: Tensor) -> float:
    """Return the fraction of variance unexplained."""
    return float((x - coder.decode(coder.encode(x), x)).square().sum() / (x - x.mean(0)).square().sum())


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Run on one thread: matrices this small are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained() -> dict[str, SparseCoder]:
    """Return an SAE of each kind trained on the planted dictionary."""
    return {kind: train(recipe, planted(1, STEPS), STEPS) for kind, recipe in RECIPES.items()}


@kinds
def test_training_explains_what_random_directions_do_not(trained: dict[str, SparseCoder], kind: str) -> None:
    """On vectors it was not trained on, the trained SAE leaves far less variance unexplained than the initial one."""
    x = torch.cat(list(planted(2, 4)))
    start = train(replace(RECIPES[kind], lr=0.0), planted(1, 1), 1)
    assert fvu(trained[kind], x) < 0.15 < 0.5 < fvu(start, x)


@kinds
def test_training_finds_the_planted_directions(trained: dict[str, SparseCoder], kind: str) -> None:
    """Nearly every planted direction is nearly parallel to a decoder row."""
    cosine = (directions() @ trained[kind].w_dec.T).amax(1)
    assert (cosine > 0.9).double().mean() > 0.7


@kinds
def test_decoder_rows_stay_unit_norm(trained: dict[str, SparseCoder], kind: str) -> None:
    """Every decoder row has norm 1 after training, and the bias subtracted from the input is the decoder's bias."""
    torch.testing.assert_close(trained[kind].w_dec.norm(dim=1), torch.ones(TOPK.width), atol=1e-5, rtol=0)
    assert torch.equal(trained[kind].b_pre, trained[kind].b_dec)


@pytest.mark.parametrize("target", [2, 5])
def test_jumprelu_lands_near_its_target(target: int) -> None:
    """The mean number of firing latents on new vectors is within a quarter of the target."""
    coder = train(replace(RECIPES["jumprelu"], k=target), planted(1, STEPS), STEPS)
    x = torch.cat(list(planted(3, 4)))
    assert len(coder.encode(x).value) / len(x) == pytest.approx(target, rel=0.25)
    assert isinstance(coder.activation, JumpReLU)
    assert (coder.activation.threshold > 0).all()


def test_a_larger_penalty_fires_fewer_latents() -> None:
    """The L1 penalty of a ReLU SAE decides its mean number of firing latents."""
    x = torch.cat(list(planted(3, 4)))
    coders = [train(replace(RECIPES["relu"], l1=l1), planted(1, STEPS // 2), STEPS // 2) for l1 in (0.0, 0.2, 0.8)]
    many, some, few = (len(coder.encode(x).value) / len(x) for coder in coders)
    assert many > 1.3 * some
    assert some > 1.3 * few
    assert all(type(coder.activation) is ReLU for coder in coders)


def test_topk_keeps_its_k(trained: dict[str, SparseCoder]) -> None:
    """The trained TopK and MultiTopK SAEs keep the recipe's k."""
    assert trained["topk"].activation == trained["multi_topk"].activation == TopK(ACTIVE)


def test_multi_topk_rebuilds_from_more_latents_too(trained: dict[str, SparseCoder]) -> None:
    """With four times as many latents as it was trained to keep, MultiTopK explains more than TopK does."""
    x = torch.cat(list(planted(2, 4)))
    plain, multi = (fvu(replace(trained[kind], activation=TopK(4 * ACTIVE)), x) for kind in ("topk", "multi_topk"))
    assert multi < plain


@kinds
def test_training_does_not_depend_on_the_scale_of_the_vectors(kind: str) -> None:
    """Training on vectors 64 times as large gives an SAE that reconstructs vectors 64 times as large in the same way."""
    small, large = (train(RECIPES[kind], planted(1, 30, scale), 30) for scale in (1.0, 64.0))
    x = next(planted(4, 1))
    torch.testing.assert_close(large.decode(large.encode(64 * x), 64 * x), 64 * small.decode(small.encode(x), x), rtol=1e-4, atol=1e-3)


@kinds
def test_the_same_seed_trains_the_same_weights(kind: str) -> None:
    """Equal vectors, recipe and seed give equal weights, whatever else is drawn; another seed gives others."""
    first = train(RECIPES[kind], planted(1, 20), 20)
    torch.rand(3)
    again, other = train(RECIPES[kind], planted(1, 20), 20), train(RECIPES[kind], planted(1, 20), 20, seed=8)
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in WEIGHTS)
    assert not torch.equal(first.w_dec, other.w_dec)


@pytest.mark.parametrize("hookpoints", [("layers.0", "layers.0"), ("layers.0", "layers.1")], ids=["one place", "two places"])
def test_company_does_not_change_what_is_learnt(hookpoints: tuple[str, str]) -> None:
    """SAEs of all kinds that are trained together on the same shuffled batches equal, to the bit, those trained alone."""

    def vectors() -> Iterator[dict[str, Tensor]]:
        for one, other in zip(planted(1, 12), planted(9, 12, 3.0), strict=True):
            yield {"layers.0": one, "layers.1": other}

    def together(kinds: list[str]) -> dict[str, SparseCoder]:
        trainers: dict[str, Trainer] = {}
        for batch in shuffled(vectors(), 4 * BATCH, 2, BATCH, torch.Generator().manual_seed(5)):
            for kind in kinds:
                x = batch[hookpoints[kind == "relu"]]
                if kind not in trainers:
                    trainers[kind] = Trainer(RECIPES[kind], x, 24, torch.Generator().manual_seed(len(kind)))
                trainers[kind].step(x)
        return {kind: trainer.coder() for kind, trainer in trainers.items()}

    company = together(list(RECIPES))
    for kind in RECIPES:
        alone = together([kind])[kind]
        assert all(torch.equal(getattr(company[kind], name), getattr(alone, name)) for name in WEIGHTS)


@pytest.mark.parametrize("kind", ["topk", "jumprelu"])
def test_dead_latents_learn_from_what_the_living_leave_over(kind: str) -> None:
    """Latents that never fire stay as they began without the auxiliary loss; with it, most of them move."""
    recipe = replace(RECIPES[kind], width=128, k=1, dead_after=2_000)
    begun = train(replace(recipe, lr=0.0), planted(1, 1), 1).w_dec
    still = {}
    for weight in (0.0, 1 / 32):
        coder = train(replace(recipe, aux_weight=weight), planted(1, 60), 60)
        still[weight] = int(((coder.w_dec - begun).norm(dim=1) < 1e-4).sum())
    assert still[1 / 32] < 0.5 * still[0.0]
    assert still[0.0] > 5


def test_vectors_that_do_not_vary_train_nothing_infinite() -> None:
    """A first batch of equal vectors still gives a scale above zero and weights that are finite."""
    trainer = Trainer(TOPK, torch.ones(4, D), 2, torch.Generator().manual_seed(0))
    trainer.step(next(planted(1, 1)))
    assert all(torch.isfinite(getattr(trainer.coder(), name)).all() for name in WEIGHTS)
