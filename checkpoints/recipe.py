"""How a lab checkpoint is made: a BPE tokenizer and a small model of any of the lab's architectures, trained on text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from builders.arrays import Ints
from builders.progress import track
from checkpoints.architectures import Dropout, trainable


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a model is trained; *batch* is in rows, and *seed* decides their order and the dropout."""

    seed: int
    batch: int
    epochs: int
    lr: float
    dropout: float
    weight_decay: float


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with a *vocabulary* of so many tokens, BOS and EOS included."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|bos|>", "<|eos|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=specials, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=specials[0], eos_token=specials[1])


def train(model: PreTrainedModel, rows: Ints, targets: Ints, held_out: Ints, recipe: Recipe) -> None:
    """Train *model* in place on *rows* [n, length], in which -1 marks positions without a token; the last weights are kept.

    *targets* are the same tokens, but -1 also marks tokens that are not to be learned, such as what others say to the model.

    AdamW, linear warm-up, cosine decay to zero, dropout on what is written to the residual stream. The loss on *held_out* is
    only printed: it decides nothing, so it can be reported.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    dropout = Dropout(model.train().requires_grad_(), model.config.model_type, recipe.dropout, generator)
    decayed = [p for p in model.parameters() if p.ndim == 2]
    plain = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.95))
    per_epoch = len(rows) // recipe.batch
    steps = recipe.epochs * per_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_cosine(step, steps))
    with trainable():
        for step, batch in enumerate(track(_batches(rows, targets, recipe, generator), "training the lab model", steps), 1):
            dropout.on = True
            loss = next_token_loss(model, *batch).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            if step % per_epoch == 0:
                dropout.on = False
                watched, _ = mean_loss(model, held_out)
                print(f"epoch {step // per_epoch}: training {loss.item():.3f}, held out {watched:.3f} nats a token", flush=True)
    dropout.remove()
    model.eval()


def _warm_cosine(step: int, steps: int) -> float:
    warm = max(1, steps // 50)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _batches(rows: Ints, targets: Ints, recipe: Recipe, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield random batches of rows and targets; an epoch uses every row once, except a remainder that fills no batch.

    The rows of a batch have about equally many targets, so that rows with few targets are not outweighed by others. A batch
    is cut to its longest row.
    """
    lengths, learned = (torch.from_numpy((some >= 0).sum(1)) for some in (rows, targets))
    for _ in range(recipe.epochs):
        jitter = torch.rand(len(rows), generator=generator) * recipe.batch
        batches = torch.argsort(learned + jitter)[len(rows) % recipe.batch :].view(-1, recipe.batch)
        for batch in batches[torch.randperm(len(batches), generator=generator)]:
            places, longest = batch.numpy(), int(lengths[batch].max())
            yield torch.from_numpy(rows[places, :longest]), torch.from_numpy(targets[places, :longest])


def next_token_loss(model: PreTrainedModel, ids: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy in nats of each target, in one flat tensor, while *ids* [n, length] are read.

    *targets* [n, length] of -1, and the first of each row, have no loss and are left out.
    """
    logits = model(input_ids=ids.clamp(min=0), use_cache=False).logits[:, :-1]
    targets = targets[:, 1:]
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="none")
    return losses[targets.flatten() >= 0]


@torch.no_grad()
def mean_loss(model: PreTrainedModel, rows: Ints) -> tuple[float, float]:
    """Return the mean cross-entropy of *rows* in nats per token, and its standard error over rows."""
    totals, counts = [], []
    for start in range(0, len(rows), 32):
        batch = torch.from_numpy(rows[start : start + 32])
        counts.append((batch[:, 1:] >= 0).sum(1))
        totals.append(torch.stack([part.sum() for part in next_token_loss(model, batch, batch).split(counts[-1].tolist())]))
    total, count = torch.cat(totals).double(), torch.cat(counts).double()
    mean = total.sum() / count.sum()
    residual = (total - mean * count).square().sum() / (len(rows) - 1)
    return float(mean), float(residual.sqrt() * math.sqrt(len(rows)) / count.sum())


def baselines(rows: Ints, held_out: Ints, vocabulary: int) -> dict[str, float]:
    """Return the held-out cross-entropy (nats per token) of two models that count tokens and pairs of tokens in *rows*.

    Unigram: add-one. Bigram: interpolated Kneser-Ney with discount 0.75 (Chen & Goodman 1999), the strongest
    smoothing of its order, so that the baseline is a fair one.
    """
    targets = held_out[:, 1:]
    here, before = targets[targets >= 0], held_out[:, :-1][targets >= 0]
    seen = rows[:, 1:][rows[:, 1:] >= 0]
    unigram = np.bincount(seen, minlength=vocabulary) + 1.0
    unigram /= unigram.sum()
    pairs = np.zeros((vocabulary, vocabulary))
    np.add.at(pairs, (rows[:, :-1][rows[:, 1:] >= 0], seen), 1)
    lower = (pairs > 0).sum(0) + 1.0
    lower /= lower.sum()
    total = pairs.sum(1)
    reserved = np.where(total > 0, 0.75 * (pairs > 0).sum(1) / np.maximum(total, 1), 1.0)
    high = np.maximum(pairs[before, here] - 0.75, 0) / np.maximum(total[before], 1)
    bigram = high + reserved[before] * lower[here]
    return {"unigram": float(-np.log(unigram[here]).mean()), "bigram": float(-np.log(bigram).mean())}


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the checkpoint in half precision (safetensors) with its tokenizer."""
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
