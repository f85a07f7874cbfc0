"""The recipe of a lab checkpoint: what it is compared with, how its loss is counted, and that training is repeatable."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional as F

from builders.subjects.checkpoints import load
from builders.subjects.places import Source
from checkpoints.architectures import Shape, build
from checkpoints.recipe import Recipe, baselines, mean_loss, next_token_loss, save, train, train_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

pytestmark = pytest.mark.numeric

Ids = npt.NDArray[np.int64]

SHAPES = {
    "llama": Shape("llama", width=16, layers=2, heads=2, hidden=32),
    "mamba2": Shape("mamba2", width=16, layers=2, heads=4, state=4),
    "rwkv": Shape("rwkv", width=16, layers=2, hidden=32),
}
RECIPE = Recipe(seed=1, batch=8, epochs=2, lr=0.02, dropout=0.1, weight_decay=0.1)
everywhere = pytest.mark.parametrize("architecture", SHAPES)


def trained(rows: Ids, targets: Ids, held_out: Ids, architecture: str = "llama", vocabulary: int = 12, **changes: Any) -> PreTrainedModel:
    """Return a new model of an architecture, trained on rows by the recipe with changes."""
    model = build(SHAPES[architecture], vocabulary, 16, seed=1)
    train(model, rows, targets, held_out, replace(RECIPE, **changes))
    return model


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Run on one thread: matrices this small are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def counting_rows(seed: int, n: int, partial: bool = True) -> Ids:
    """Return rows that mostly count upwards from a random number (2 to 11, round and round), some of them cut short."""
    rng = np.random.default_rng(seed)
    rows = 2 + (rng.integers(0, 10, (n, 1)) + np.arange(12)) % 10
    rows = np.where(rng.random(rows.shape) < 0.1, rng.integers(2, 12, rows.shape), rows)
    if partial:
        rows[np.arange(12) >= rng.integers(3, 13, (n, 1))] = -1
    return rows


# Baselines on a toy corpus: rows 0 1 0 1 and 0 0, of a vocabulary of three

ROWS = np.array([[0, 1, 0, 1], [0, 0, -1, -1]])


def test_the_unigram_by_hand() -> None:
    """Of the 4 predicted tokens 2 are 0 and 2 are 1, so with add-one P = 3/7, 3/7, 1/7."""
    found = baselines(ROWS, np.array([[0, 1, 2]]), 3)
    assert found["unigram"] == pytest.approx(-(math.log(3 / 7) + math.log(1 / 7)) / 2)


def test_the_bigram_by_hand() -> None:
    """After 0 come 1, 1 and 0; after 1 comes 0. Kneser-Ney: discounted counts, and the rest by what tokens follow how many others.

    Tokens 0, 1, 2 follow 2, 1, 0 different tokens, so with add-one the lower order is 3/6, 2/6, 1/6. After 0, two kinds
    were seen in three, so 0.75 · 2/3 = 1/2 is reserved: P(1|0) = 1.25/3 + 1/2 · 2/6, P(2|0) = 1/2 · 1/6. After 1, one
    kind in one: 3/4 is reserved, so P(0|1) = 1/4 + 3/4 · 3/6. After 2 nothing was seen: P(1|2) = 2/6.
    """
    probability = {(0, 1): 1.25 / 3 + 1 / 6, (0, 2): 1 / 12, (1, 0): 1 / 4 + 3 / 8, (2, 1): 1 / 3}
    for pair, expected in probability.items():
        assert baselines(ROWS, np.array([pair]), 3)["bigram"] == pytest.approx(-math.log(expected))


@pytest.mark.parametrize("before", [0, 1, 2])
def test_the_bigram_is_a_distribution(before: int) -> None:
    """The probabilities of all tokens after any token, seen or not, add up to one."""
    losses = [baselines(ROWS, np.array([[before, here]]), 3)["bigram"] for here in range(3)]
    assert sum(math.exp(-loss) for loss in losses) == pytest.approx(1)


def test_baselines_pass_over_padding() -> None:
    """−1 is no token: longer padding, of either set of rows, changes nothing."""
    held_out = np.array([[0, 1, 1], [2, 0, -1]])
    wide_rows, wide_held_out = (np.pad(rows, ((0, 1), (0, 3)), constant_values=-1) for rows in (ROWS, held_out))
    assert baselines(wide_rows, wide_held_out, 3) == pytest.approx(baselines(ROWS, held_out, 3))


# How the loss is counted


@pytest.fixture
def model(tiny_checkpoint: Path) -> PreTrainedModel:
    """Return the tiny model."""
    return load(Source(path=str(tiny_checkpoint)), tiny_checkpoint, "float32", "cpu")


def test_the_loss_is_that_of_the_tokens_that_are_there(model: PreTrainedModel) -> None:
    """Padded rows give, token by token, the losses of each row read alone without its padding."""
    rows = [[5, 6, 7, 8, 9], [4, 3], [9, 8, 7]]
    padded = torch.tensor([row + [-1] * (5 - len(row)) for row in rows])
    alone = []
    for row in rows:
        logits = model(input_ids=torch.tensor([row])).logits[0, :-1]
        alone.append(F.cross_entropy(logits, torch.tensor(row[1:]), reduction="none"))
    torch.testing.assert_close(next_token_loss(model, padded, padded), torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_the_mean_loss_weighs_tokens_and_its_error_rows(model: PreTrainedModel) -> None:
    """The mean is over tokens; its error is that of a ratio of sums over rows; neither depends on how rows are batched."""
    rng = np.random.default_rng(0)
    rows = rng.integers(2, 300, (40, 6))
    rows[np.arange(6) >= rng.integers(2, 7, (40, 1))] = -1
    totals = np.array([float(next_token_loss(model, *[torch.tensor(row[None])] * 2).sum()) for row in rows])
    counts = (rows[:, 1:] >= 0).sum(1)
    mean = totals.sum() / counts.sum()
    residual = totals - mean * counts
    error = math.sqrt(40 * (residual**2).sum() / 39) / counts.sum()
    assert mean_loss(model, rows) == pytest.approx((mean, error), rel=1e-4)


# Training


@everywhere
def test_two_epochs_reduce_the_loss(architecture: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Two epochs bring the held-out loss well below that of a guess among all tokens, and each epoch says where it stands."""
    rows, held_out = counting_rows(1, 200), counting_rows(2, 40)
    model = trained(rows, rows, held_out, architecture)
    loss, error = mean_loss(model, held_out)
    assert loss + 4 * error < math.log(10) - 0.2
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1", "epoch 2"]
    assert f"held out {loss:.3f}" in lines[1]


@everywhere
def test_the_same_seed_gives_the_same_weights(architecture: str) -> None:
    """Equal rows and recipe give equal weights, whatever the state of the library's own generator; another seed gives others."""
    rows, held_out = counting_rows(1, 40), counting_rows(2, 8)
    with torch.random.fork_rng():
        weights = []
        for seed in (1, 1, 2):
            torch.rand(3)
            weights.append(trained(rows, rows, held_out, architecture, seed=seed).state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_what_is_held_out_is_only_watched() -> None:
    """Other held-out rows change nothing about the weights."""
    rows = counting_rows(1, 40)
    one, other = (trained(rows, rows, counting_rows(seed, 8)).state_dict() for seed in (2, 3))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_padding_teaches_nothing() -> None:
    """Rows with more padding on the right train the same model."""
    rows = counting_rows(1, 40)
    wide = np.pad(rows, ((0, 0), (0, 4)), constant_values=-1)
    # Dropout draws one number per place, padding included.
    one, other = (trained(some, some, rows[:8], dropout=0.0) for some in (rows, wide))
    ids = torch.from_numpy(counting_rows(5, 4, partial=False))
    with torch.no_grad():
        torch.testing.assert_close(one(input_ids=ids).logits, other(input_ids=ids).logits, rtol=1e-3, atol=1e-3)


@everywhere
def test_what_is_no_target_is_not_learned(architecture: str) -> None:
    """Without the first half of rows as targets training gives other weights, and that half still matters as what is read."""
    rows = counting_rows(1, 40, partial=False)
    targets = np.where(np.arange(12) < 6, -1, rows)
    other = np.where(np.arange(12) < 6, 2 + (rows + 1) % 10, rows)
    whole, half, read = (
        trained(some, told, rows[:8], architecture, epochs=1).state_dict()
        for some, told in ((rows, rows), (rows, targets), (other, targets))
    )
    assert not all(torch.equal(whole[name], half[name]) for name in whole)
    assert not all(torch.equal(read[name], half[name]) for name in whole)


@everywhere
def test_a_trained_model_is_read_without_dropout(architecture: str) -> None:
    """After training, reading the same tokens twice gives the same loss."""
    rows = counting_rows(1, 24)
    model = trained(rows, rows, rows[:8], architecture, dropout=0.5)
    ids = torch.from_numpy(rows)
    assert torch.equal(next_token_loss(model, ids, ids), next_token_loss(model, ids, ids))


@everywhere
def test_training_goes_on_from_a_subject(architecture: str, tmp_path: Path) -> None:
    """A checkpoint that was loaded to be studied, and so takes no gradients, is trained further: every weight changes."""
    rows = counting_rows(1, 24)
    save(trained(rows, rows, rows[:8], architecture, epochs=1), train_tokenizer(TEXTS, 280), tmp_path)
    model = load(Source(path=str(tmp_path)), tmp_path, "float32", "cpu")
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    train(model, rows, rows, rows[:8], replace(RECIPE, epochs=1))
    assert not [name for name, weight in model.named_parameters() if torch.equal(weight, before[name])]


# The checkpoint

TEXTS = ["the cat sat on the mat", "the dog sat on the log", "naïve café 🙂"] * 5


def test_the_tokenizer_loses_nothing() -> None:
    """Any text, seen or not, comes back from its ids; BOS is 0, EOS is 1, and the vocabulary is of the size asked for."""
    tokenizer = train_tokenizer(TEXTS, 280)
    assert len(tokenizer) == 280
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1)
    for text in ("the cat", "Ελλάδα 日本\n\ttabs", " leading and trailing "):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


@everywhere
def test_a_saved_checkpoint_is_a_subject(architecture: str, tmp_path: Path) -> None:
    """What is saved loads as a subject, without pickles, and predicts what the trained model predicted, to half precision."""
    tokenizer = train_tokenizer(TEXTS, 280)
    rows = counting_rows(1, 16)
    model = trained(rows, rows, rows[:8], architecture, vocabulary=280)
    before = mean_loss(model, rows)[0]
    save(model, tokenizer, tmp_path)
    again = load(Source(path=str(tmp_path)), tmp_path, "float32", "cpu")
    assert mean_loss(again, rows)[0] == pytest.approx(before, abs=0.01)
    assert not list(tmp_path.glob("*.bin"))
