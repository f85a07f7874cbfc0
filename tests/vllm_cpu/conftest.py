"""A small model that answers, made anew: enough for a real engine to serve."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
TURN, ANSWER = "<assistant>", ("[EXPLANATION]:", " words about boats")


@pytest.fixture(scope="session")
def talker(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """Return the folder of a Llama of two random blocks that answers every conversation with ANSWER.

    Its tokens are added whole, and the unembedding raises after each of them the next.
    """
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("talker") / "talker"
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    tokenizer.add_tokens([TURN, *ANSWER])
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
        chain = [*(tokenizer.convert_tokens_to_ids(token) for token in (TURN, *ANSWER)), config.eos_token_id]
        for token, following in pairwise(chain):
            model.lm_head.weight[following] += 2 * model.model.embed_tokens.weight[token]
        model.save_pretrained(folder)
    return folder
