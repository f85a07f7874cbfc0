"""What a lens is compared with at which tokens, against rows that are read alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from recurrent import ARCHITECTURES, VOCABULARY, tiny
from rows import rows_of

from builders.errors import UserError
from builders.lenses.lens import LogitLens, chunks, counted
from builders.saes.fidelity import row_losses
from builders.subjects.anatomy import Anatomy, anatomy_of
from builders.subjects.harvest import read_rows
from builders.subjects.hookpoints import capture
from builders.text.tokens import TOKENS

if TYPE_CHECKING:
    import pyarrow as pa

pytestmark = pytest.mark.numeric

ROWS = [[0, 7, 11, 13, 2], [5, 3], [9], [0, 4, 0, 8, 8, 1]]


def tokens(*ids: list[int]) -> pa.Table:
    """Return rows of these *ids*, in which 0 is special."""
    return rows_of(TOKENS, *({"row": n, "ids": row, "special": [token == 0 for token in row], "bytes": 9} for n, row in enumerate(ids)))


def test_the_logit_lens_changes_nothing() -> None:
    """The logit lens carries a vector of any layer as it is."""
    hidden = torch.eye(3)
    assert torch.equal(LogitLens().carried(2, hidden), hidden)
    assert LogitLens().name == "logit"


def test_tokens_that_a_text_token_follows_are_counted() -> None:
    """A special token counts where text follows it; what comes before special tokens or padding does not, nor does a row's last token."""
    _, is_text = read_rows(tokens(*ROWS), "cpu")
    assert counted(is_text).int().tolist() == [[1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 0, 1, 1, 1, 0]]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_chunk_is_what_rows_read_alone_give(name: str) -> None:
    """Rows, next tokens, log-probabilities and the stream of each layer are those of each row read alone, in order."""
    model = tiny(name)
    anatomy = anatomy_of(model)
    (chunk,) = chunks(model, anatomy, tokens(*ROWS), "cpu")
    place, target, final, hidden = [], [], [], []
    for number, ids in enumerate(ROWS):
        own = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
        seen = capture(model, anatomy.layers, torch.tensor([ids]))
        for position in range(len(ids) - 1):
            if ids[position + 1] != 0:
                place.append(number)
                target.append(ids[position + 1])
                final.append(own[position])
                hidden.append(torch.stack([seen[layer][0, position] for layer in anatomy.layers]))
    assert chunk.place.tolist() == place
    assert chunk.target.tolist() == target
    torch.testing.assert_close(chunk.final, torch.stack(final), rtol=0, atol=1e-4)
    torch.testing.assert_close(torch.stack(chunk.hidden, 1), torch.stack(hidden), rtol=1e-4, atol=1e-4)
    assert torch.equal(chunk.top, torch.stack(final).argmax(-1))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_losses_are_those_that_fidelity_counts(name: str) -> None:
    """Summed by row, the model's own losses are those of the room of dictionaries."""
    model, rows = tiny(name), tokens(*ROWS)
    (chunk,) = chunks(model, anatomy_of(model), rows, "cpu")
    summed = torch.zeros(len(ROWS)).index_add_(0, chunk.place, chunk.loss)
    torch.testing.assert_close(summed, row_losses(model, *read_rows(rows, "cpu")))


def test_small_chunks_are_cuts_of_a_large_one() -> None:
    """Where the vocabulary allows three tokens at a time, chunks of three joined are the one large chunk."""
    model = tiny("llama")
    anatomy = anatomy_of(model)
    (whole,) = chunks(model, anatomy, tokens(*ROWS), "cpu")
    parts = list(chunks(model, anatomy, tokens(*ROWS), "cpu", cells=3 * VOCABULARY + 7))
    assert [len(part.place) for part in parts] == [3, 3, 3]
    for name in ("place", "target", "final", "loss", "top", "probability"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    for layer, hidden in enumerate(whole.hidden):
        assert torch.equal(torch.cat([part.hidden[layer] for part in parts]), hidden)


def test_vectors_of_a_position_before() -> None:
    """One token ahead, vectors are those of the position before, and the first position of a row is left out."""
    model = tiny("mamba")
    anatomy = anatomy_of(model)
    (here,) = chunks(model, anatomy, tokens([0, 7, 11, 13, 2]), "cpu")
    (before,) = chunks(model, anatomy, tokens([0, 7, 11, 13, 2]), "cpu", ahead=1)
    assert torch.equal(before.target, here.target[1:])
    assert torch.equal(before.final, here.final[1:])
    for one, other in zip(before.hidden, here.hidden, strict=True):
        assert torch.equal(one, other[:-1])


def test_rows_without_a_token_to_predict_give_no_chunk() -> None:
    """Rows of one token, or of special tokens, have no next token."""
    model = tiny("llama")
    assert list(chunks(model, anatomy_of(model), tokens([9], [0, 0]), "cpu")) == []


def test_another_models_anatomy_is_one_line() -> None:
    """An anatomy that does not give the model's own logits is refused before anything is measured."""
    model = tiny("llama")
    wrong: dict[str, Any] = {**vars(anatomy_of(model)), "factor": 2.0}
    with pytest.raises(UserError, match="are not this model's logits"):
        next(chunks(model, Anatomy(**wrong), tokens(*ROWS), "cpu"))
