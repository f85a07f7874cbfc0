"""How a lab checkpoint is made: a BPE tokenizer and a small Llama, trained on the corpus of the default run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from builders.progress import track
from builders.seeds import seed_of

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is trained; *length* and *batch* in tokens and rows."""

    seed: int
    vocabulary: int
    width: int
    layers: int
    heads: int
    hidden: int
    length: int
    batch: int
    epochs: int
    lr: float
    dropout: float
    weight_decay: float


def train_tokenizer(texts: list[str], recipe: Recipe) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of *recipe*'s vocabulary with BOS and EOS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|bos|>", "<|eos|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=recipe.vocabulary, special_tokens=specials, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=specials[0], eos_token=specials[1])


def train(rows: Ids, held_out: Ids, recipe: Recipe) -> LlamaForCausalLM:
    """Train on *rows* [n, length] (-1 where there is no token) and return the last weights.

    AdamW, linear warm-up, cosine decay to zero, dropout on what attention and MLP write to the residual stream.
    *held_out* is only watched: nothing is chosen by it, so that its loss can be reported.
    """
    generator = torch.Generator().manual_seed(seed_of(recipe.seed, "lab"))
    model = _model(recipe, generator)
    dropout = _Dropout(model, recipe.dropout, generator)
    decayed = [p for p in model.parameters() if p.ndim == 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.95))
    steps = recipe.epochs * (len(rows) // recipe.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_cosine(step, steps))
    per_epoch = len(rows) // recipe.batch
    for step, batch in enumerate(track(_batches(rows, recipe, generator), "training the lab model", steps), 1):
        dropout.on = True
        loss = next_token_loss(model, batch).mean()
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
    return model


def _model(recipe: Recipe, generator: torch.Generator) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.width,
        intermediate_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=2 * recipe.length,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():  # from our own generator: the library draws from global state
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.02, generator=generator)
    return model


class _Dropout:
    """Dropout on the output of every attention and MLP block, which Llama's own code does not offer."""

    def __init__(self, model: LlamaForCausalLM, share: float, generator: torch.Generator) -> None:
        self.on, self.share, self.generator = True, share, generator
        blocks = [block for layer in model.model.layers for block in (layer.self_attn.o_proj, layer.mlp)]
        self._hooks = [block.register_forward_hook(self._drop) for block in (model.model.embed_tokens, *blocks)]

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _drop(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if not self.on or not self.share:
            return output
        keep = torch.rand(output.shape, generator=self.generator) >= self.share
        return output * keep / (1 - self.share)


def _warm_cosine(step: int, steps: int) -> float:
    warm = max(1, steps // 50)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _batches(rows: Ids, recipe: Recipe, generator: torch.Generator) -> Iterator[Tensor]:
    for _ in range(recipe.epochs):
        order = torch.randperm(len(rows), generator=generator)
        for start in range(0, len(rows) - recipe.batch + 1, recipe.batch):
            yield torch.from_numpy(rows[order[start : start + recipe.batch].numpy()])


def next_token_loss(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Return the cross-entropy in nats of each token after the first of *ids* [n, length]; -1 marks no token."""
    logits = model(input_ids=ids.clamp(min=0)).logits[:, :-1]
    targets = ids[:, 1:]
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="none")
    return losses[targets.flatten() >= 0]


@torch.no_grad()
def mean_loss(model: PreTrainedModel, rows: Ids) -> tuple[float, float]:
    """Return the mean cross-entropy of *rows* in nats per token, and its standard error over rows."""
    totals, counts = [], []
    for start in range(0, len(rows), 32):
        batch = torch.from_numpy(rows[start : start + 32])
        counts.append((batch[:, 1:] >= 0).sum(1))
        totals.append(torch.stack([part.sum() for part in next_token_loss(model, batch).split(counts[-1].tolist())]))
    total, count = torch.cat(totals).double(), torch.cat(counts).double()
    mean = total.sum() / count.sum()
    residual = (total - mean * count).square().sum() / (len(rows) - 1)
    return float(mean), float(residual.sqrt() * math.sqrt(len(rows)) / count.sum())


def baselines(rows: Ids, held_out: Ids, vocabulary: int) -> dict[str, float]:
    """Return the held-out cross-entropy (nats per token) of counting models fitted to *rows*.

    Unigram: add-one. Bigram: interpolated Kneser-Ney with discount 0.75 (Chen & Goodman 1999), the strongest
    smoothing of its order, so that the comparison is not with a straw man.
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


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the checkpoint in half precision (safetensors) with its tokenizer."""
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
