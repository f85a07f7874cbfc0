"""A small model that answers, made anew: enough for a real engine to serve."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from pathlib import Path

TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
# Who speaks next is who is asked: a judge is shown an explanation first.
TEMPLATE = TURNS + (
    "{% if add_generation_prompt %}{{ '<judge>' if messages[-1].content.startswith('Explanation: ') else '<assistant>' }}{% endif %}"
)
CHAINS = (("<assistant>", "[EXPLANATION]:", " words about boats"), ("<judge>", "[1", ",0", ", 1", ", 0", ",1]"))
LEVELS = ("0", "3", "7")  # what it says of a unit after a tab, in shares that depend on what stands before


@pytest.fixture(scope="session")
def talker(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """Return the folder of a Llama of two random blocks that answers every conversation with one of CHAINS, and simulates by LEVELS.

    The tokens of CHAINS are added whole, and the unembedding raises after each of them the next.
    """
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("talker") / "talker"
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    tokenizer.add_tokens([token for chain in CHAINS for token in chain])
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=448,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=7,
        num_key_value_heads=7,
        max_position_embeddings=8192,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
        model.model.embed_tokens.weight.copy_(torch.eye(len(tokenizer), config.hidden_size))
        pairs = [pair for chain in CHAINS for pair in pairwise([*chain, tokenizer.eos_token])] + [("\t", level) for level in LEVELS]
        for pair in pairs:
            token, following = (tokenizer(text)["input_ids"][0] for text in pair)
            model.lm_head.weight[following] += 2 * model.model.embed_tokens.weight[token]
        model.save_pretrained(folder)
    return folder
