"""Measures the time saved by scoring continuations in batches, relative to one at a time and to batches that share no prompt.

`python -m benchmarks.continuations`: windows of text after one prompt of about 300 tokens, as the surprisal scorer asks; each
figure is a ratio within this one run. Torch's threads are set by OMP_NUM_THREADS.
"""

from __future__ import annotations

import pydoc_data.topics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from builders.engines.local import LocalEngine, LocalSettings
from builders.engines.requests import Answer, Request, Score
from builders.subjects import places

TOKENIZER = "checkpoints/lab-transformer"


def written(folder: Path, width: int, layers: int) -> Path:
    """Write a random Llama with the lab's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers, "num_attention_heads": width // 64}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=1024, **sizes)).save_pretrained(folder)
    return folder


def windows(count: int, prompt_tokens: int, window: int) -> list[Score]:
    """Return windows of the machine's own documentation, all after the same prompt; about three characters make a token."""
    text = pydoc_data.topics.topics["typesmapping"] + pydoc_data.topics.topics["specialnames"]
    prompt, rest, size = text[: 3 * prompt_tokens] + "\n", text[3 * prompt_tokens :], 3 * window
    return [Score(prompt, rest[number * size : (number + 1) * size]) for number in range(count)]


def seconds(engine: LocalEngine, parts: Sequence[Sequence[Request]]) -> tuple[float, list[float]]:
    """Return the time that *parts* take one after another, and each text's log-probability."""
    start = time.perf_counter()
    found = []
    for part in parts:
        outcomes = dict(engine.run(part))
        answers = [outcomes[place] for place in range(len(part))]
        found += [sum(token.logprob for token in answer.tokens) for answer in answers if isinstance(answer, Answer)]
    return time.perf_counter() - start, found


@click.command()
@click.option("--windows", "count", default=100, help="Windows to score.", show_default=True)
@click.option("--prompt", default=300, help="Tokens of the prompt, about.", show_default=True)
@click.option("--window", default=32, help="Tokens of a window, about.", show_default=True)
@click.option("--width", default=256, help="Width of the random model.", show_default=True)
@click.option("--layers", default=6, help="Its layers.", show_default=True)
@click.option("--repeats", default=3, help="Times each way runs; the median is told.", show_default=True)
@click.option("--device", default="auto", help="Where it runs.", show_default=True)
def main(count: int, prompt: int, window: int, width: int, layers: int, repeats: int, device: str) -> None:
    """Print the time of each way as a multiple of batches with a shared prompt, and the largest difference of their log-probabilities."""
    asked = windows(count, prompt, window)
    # A longer prompt for each request, by a word at its beginning: nothing is shared.
    apart = [Score(f"{number} {request.prompt}", request.continuation) for number, request in enumerate(asked)]
    ways = {"one at a time": [[request] for request in asked], "in batches, no prompt shared": [apart], "in batches": [asked]}
    with tempfile.TemporaryDirectory() as folder:
        source = places.Source(str(written(Path(folder), width, layers)))
        engine = LocalEngine(LocalSettings(source, "float32", device))
    times: dict[str, list[float]] = {name: [] for name in ways}
    said: dict[str, list[float]] = {}
    for _ in range(repeats):  # in turns, so that other load on the machine falls on all of them
        for name, parts in ways.items():
            taken, said[name] = seconds(engine, parts)
            times[name].append(taken)
    middle = {name: sorted(found)[repeats // 2] for name, found in times.items()}
    tokens = len(AutoTokenizer.from_pretrained(TOKENIZER)(asked[0].prompt)["input_ids"])
    click.echo(f"{count} windows after a prompt of {tokens} tokens; width {width}, {layers} layers, {torch.get_num_threads()} threads")
    for name, taken in middle.items():
        click.echo(f"{name}: {taken:.2f} s, {taken / middle['in batches']:.2f} of batches")
    worst = max(abs(one - other) for one, other in zip(said["one at a time"], said["in batches"], strict=True))
    click.echo(f"largest difference of a window's log-probability, one at a time and in batches: {worst:.1e} nats")


if __name__ == "__main__":
    main()
