"""A steered model. One whole reading for each prompt and push, with plain hooks and the library's own memory, is the reference."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from recurrent import ARCHITECTURES, LAYERS, RECURRENT, VOCABULARY, WIDTH, tiny
from torch import Tensor

from builders.errors import UserError
from builders.steering.asking import Prompt
from builders.steering.steerer import Steerer
from builders.steering.vectors import Directions, contrast, difference
from builders.steering.ways import ALIGNED, BOTH, LATE, RESIDUAL, STATE, Push
from builders.subjects.states import advance, family_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt
    from transformers import PreTrainedModel

    Floats = npt.NDArray[np.float64]

pytestmark = pytest.mark.numeric

DRAW = np.random.default_rng(0)
PROMPTS = [Prompt(tuple(DRAW.integers(3, VOCABULARY, size).tolist()), *DRAW.permutation(9)[:2].tolist(), "") for size in (8, 5, 8, 4)]
SITES = (RESIDUAL, STATE, BOTH)
GRID = [Push("one", site, layer, (-2.0, 1.5)[layer % 2]) for site in SITES for layer in range(LAYERS)]
ZEROS = [Push("one", site, layer, 0.0) for layer, site in enumerate(SITES)]
STREAM = [Push("stream", RESIDUAL, layer, 3.0) for layer in (0, 2)]  # of a method without state
PUSHES: list[Push | None] = [None, *STREAM, *GRID, *ZEROS]
TEXTS = DRAW.integers(3, VOCABULARY, (3, 5)).tolist()
DRAWS = DRAW.random((3, 4))
close = partial(torch.testing.assert_close, rtol=0, atol=1e-5)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """Return a random model of one of the architectures."""
    return tiny(request.param)


@pytest.fixture(scope="module")
def directions(model: PreTrainedModel) -> dict[str, Directions]:
    """Return random vectors for the stream and all parts of the state, and others for the stream alone."""
    memory, family, draw = advance(model, torch.tensor([[1, 2]]))[1], family_of(model), torch.Generator().manual_seed(1)
    shapes = [{name: part.shape[1:] for name, part in family.parts(memory, layer).items()} for layer in range(LAYERS)]
    state = [{name: torch.randn(shape, generator=draw) for name, shape in parts.items()} for parts in shapes]
    one, other = torch.randn(2, LAYERS, WIDTH, generator=draw)
    return {"one": Directions(one, state), "stream": Directions(other, [{}] * LAYERS)}


@pytest.fixture(scope="module", params=[1, 3])
def last(request: pytest.FixtureRequest) -> int:
    """Return at how many tokens vectors are added."""
    return int(request.param)


@pytest.fixture(scope="module")
def expected(model: PreTrainedModel, directions: dict[str, Directions], last: int) -> Floats:
    """Return log-probabilities of both letters [prompts, pushes, 2], one by one."""
    found = np.empty((len(PROMPTS), len(PUSHES), 2))
    for (row, prompt), (column, push) in product(enumerate(PROMPTS), enumerate(PUSHES)):
        logprobs = after(model, list(prompt.ids), push, directions, range(len(prompt.ids) - last, len(prompt.ids)))
        found[row, column] = logprobs[[prompt.matching, prompt.other]]
    return found


@torch.no_grad()
def after(
    model: PreTrainedModel, text: Sequence[int], push: Push | None, directions: dict[str, Directions], where: Sequence[int]
) -> Tensor:
    """Return log-probabilities of what follows *text* [vocabulary], pushed at its tokens *where*."""
    ids = torch.tensor([text])
    if push is None:
        return model(input_ids=ids, use_cache=False).logits[0, -1].log_softmax(-1)
    vectors = directions[push.method]
    added = push.multiplier * vectors.residual[push.layer] if push.site in (RESIDUAL, BOTH) else torch.zeros(WIDTH)
    if push.site == RESIDUAL or not vectors.state[push.layer]:
        with hooked(model, push.layer, added, list(where)):
            return model(input_ids=ids, use_cache=False).logits[0, -1].log_softmax(-1)
    name = "state" if model.config.model_type == "rwkv" else "cache_params"
    memory = getattr(model(input_ids=ids[:, : where[0]], use_cache=True), name)
    for place in range(where[0], len(text)):
        if place in where:
            add(memory, push, vectors)
        with hooked(model, push.layer, added, [0] if place in where else []):
            logits = model(input_ids=ids[:, place : place + 1], use_cache=True, **{name: memory}).logits
    return logits[0, -1].log_softmax(-1)


@contextmanager
def hooked(model: PreTrainedModel, layer: int, added: Tensor, where: list[int]) -> Iterator[None]:
    """While inside, *added* is added to what the block writes at tokens *where*."""
    base: Any = model.base_model

    def hook(_: Any, __: Any, output: Any) -> Any:
        stream = (output[0] if isinstance(output, tuple) else output).clone()
        stream[:, where] += added
        return (stream, *output[1:]) if isinstance(output, tuple) else stream

    handle = (getattr(base, "blocks", None) or base.layers)[layer].register_forward_hook(hook)
    yield
    handle.remove()


def add(memory: Any, push: Push, vectors: Directions) -> None:
    """Add to the tensors in which the library keeps the state of one text."""
    change, layer = {name: push.multiplier * part for name, part in vectors.state[push.layer].items()}, push.layer
    if not isinstance(memory, list):
        memory.layers[layer].conv_states[0] += change["conv"]
        memory.layers[layer].recurrent_states[0] += change["ssm"]
        return
    feed_forward, attention, numerator, denominator, scale = (tensor[0, :, layer] for tensor in memory)
    value, weight = numerator / denominator + change["value"], denominator * scale.exp() * change["weight"].exp()
    feed_forward += change["feed_forward"]
    attention += change["attention"]
    numerator[:], denominator[:], scale[:] = value * weight, weight, 0.0  # a mean of values and its weight, on another scale


def written(
    model: PreTrainedModel, text: list[int], draws: Floats, push: Push | None, directions: dict[str, Directions], last: int, following: bool
) -> list[int]:
    """Return what is written after *text*, which is read anew for each token."""
    found: list[int] = []
    for draw in draws:
        where = range(len(text) - last, len(text) + len(found) if following else len(text))
        shares = after(model, text + found, push, directions, where).double().exp().cumsum(0)
        found.append(int((shares <= draw * shares[-1]).sum()))
        if found[-1] == model.config.eos_token_id:
            break
    return found


def idle(model: PreTrainedModel, push: Push) -> bool:
    """Return whether *push* adds nothing to *model*."""
    return not push.multiplier or (push.site == STATE and model.config.model_type == "llama")


class TestAnswers:
    """Log-probabilities of both letters."""

    @pytest.mark.parametrize(("batch", "every"), [(1, 3), (7, 1), (256, 1)])  # one row at a time takes long
    def test_all_are_as_if_alone(
        self, batch: int, every: int, model: PreTrainedModel, directions: dict[str, Directions], last: int, expected: Floats
    ) -> None:
        """Every prompt under every push says what it says when read alone, at once, however many rows are read together."""
        found = Steerer(model, directions, batch, last).answers(PROMPTS, PUSHES[::every])
        assert np.abs(found - expected[:, ::every]).max() < 1e-5

    def test_pushes_matter(self, model: PreTrainedModel, expected: Floats) -> None:
        """The reference itself moves with every push but those times 0, and those of a state that a model does not have."""
        for column, push in enumerate(PUSHES):
            moved = np.abs(expected[:, column] - expected[:, 0]).max()
            assert moved < 1e-5 if push is None or idle(model, push) else moved > 1e-2, push

    def test_nothing_is_nothing(self, model: PreTrainedModel, directions: dict[str, Directions]) -> None:
        """Alone, no push and pushes times 0 leave the model's own answers bit for bit; among others, that is so to a millionth."""
        steerer = Steerer(model, directions, 7)
        plain = steerer.answers(PROMPTS, [None])
        own = torch.stack([after(model, prompt.ids, None, directions, [])[[prompt.matching, prompt.other]] for prompt in PROMPTS])
        close(torch.from_numpy(plain[:, 0]).float(), own)
        assert all(np.array_equal(steerer.answers(PROMPTS, [push]), plain) for push in ZEROS)
        among = steerer.answers(PROMPTS, PUSHES)[:, [PUSHES.index(push) for push in (None, *ZEROS)]]
        assert np.abs(among - plain).max() < 1e-6

    @pytest.mark.parametrize("site", SITES)
    def test_pushes_do_not_leak(self, site: str, model: PreTrainedModel, directions: dict[str, Directions]) -> None:
        """Pushes that make a prompt's numbers infinite or none leave all rows beside them, of any push and prompt, as they are."""
        steerer = Steerer(model, directions, 256)
        broken = [Push("one", site, layer, multiplier) for layer, multiplier in enumerate((float("nan"), float("inf"), 1e30))]
        found = steerer.answers(PROMPTS, [broken[0], *PUSHES[:6], *broken[1:], *PUSHES[6:]])
        kept = np.delete(found, [0, 7, 8], axis=1)
        assert np.abs(kept - steerer.answers(PROMPTS, PUSHES)).max() < 1e-5
        assert np.isfinite(found[:, 0]).all() == idle(model, broken[0])

    def test_a_prompt_alone(self, model: PreTrainedModel, directions: dict[str, Directions]) -> None:
        """Each prompt has the answers that it has without the others, in its place, and in any order of prompts and pushes."""
        steerer = Steerer(model, directions, 256)
        together = steerer.answers(PROMPTS, PUSHES)
        alone = np.concatenate([steerer.answers([prompt], PUSHES) for prompt in PROMPTS])
        assert np.abs(together - alone).max() < 1e-5
        assert np.abs(steerer.answers(PROMPTS[::-1], PUSHES[::-1])[::-1, ::-1] - together).max() < 1e-5

    @pytest.mark.parametrize("name", RECURRENT)
    def test_phases_and_parts_share_a_batch(self, name: str) -> None:
        """Each part alone and all together, late and in phase, at every layer, says in a batch what it says alone; phases differ."""
        model = tiny(name)
        one = difference(contrast(model, PROMPTS, 4))
        steerer, sites = Steerer(model, {"one": one}, 256), (STATE, BOTH, *one.state[0])
        pushes = [Push("one", site, layer, 3.0, phase) for site in sites for layer in range(LAYERS) for phase in (LATE, ALIGNED)]
        together = steerer.answers(PROMPTS, pushes)
        alone = np.concatenate([steerer.answers(PROMPTS, [push]) for push in pushes], axis=1)
        assert np.abs(together - alone).max() < 1e-5
        late, aligned = together[:, ::2], together[:, 1::2]
        differ = np.abs(late - aligned).max(axis=(0, 2)).reshape(len(sites), LAYERS).max(axis=1) > 1e-4
        assert differ.tolist() == [site in (STATE, BOTH, *steerer.family.twofold) for site in sites]

    def test_a_state_of_unknown_phase_is_refused(self) -> None:
        """Where nobody knows how a state is changed in phase, that is one line."""
        model = tiny("lfm2")
        state = [{name: part[0] for name, part in family_of(model).parts(advance(model, torch.tensor([[1, 2]]))[1], 0).items()}]
        steerer = Steerer(model, {"one": Directions(torch.zeros(LAYERS, WIDTH), [*state, {}, {}])}, 4)
        with pytest.raises(UserError, match=r"nobody knows how to change its state in phase; use `phases: \[late\]`$"):
            steerer.answers(PROMPTS, [Push("one", STATE, 0, 1.0, ALIGNED)])

    @pytest.mark.parametrize("name", RECURRENT)
    def test_a_method_without_state_adds_none(self, name: str) -> None:
        """Where one method has a state and another has none, either may come first in a batch, and each adds what it has."""
        model = tiny(name)
        one = difference(contrast(model, PROMPTS, 4))
        steerer = Steerer(model, {"one": one, "stream": Directions(one.residual, [{}] * LAYERS)}, 256)
        pushes = [Push(method, site, 1, 2.0) for method in ("one", "stream") for site in (STATE, BOTH, RESIDUAL)]
        state, both, residual, *without = steerer.answers(PROMPTS, pushes).swapaxes(0, 1)
        nothing, same, also = without
        plain = steerer.answers(PROMPTS, [None])[:, 0]
        assert np.abs(np.stack([nothing - plain, same - residual, also - residual])).max() < 1e-6
        assert min(np.abs(one - other).max() for one, other in ((state, plain), (both, residual), (both, state))) > 1e-3
        assert np.abs(steerer.answers(PROMPTS, pushes[::-1])[:, ::-1] - np.stack([state, both, residual, *without], axis=1)).max() < 1e-6

    def test_no_prompts_and_no_pushes(self) -> None:
        """Nothing asked is nothing answered."""
        steerer = Steerer(tiny("llama"), {}, 4)
        assert steerer.answers([], [None]).shape == (0, 1, 2)
        assert steerer.answers(PROMPTS, []).shape == (len(PROMPTS), 0, 2)

    def test_the_model_is_as_before(self, model: PreTrainedModel, directions: dict[str, Directions]) -> None:
        """No hook is left on the model, and its own answer is bit for bit the same."""
        ids = torch.tensor([PROMPTS[0].ids])
        before = model(input_ids=ids, use_cache=False).logits
        hooks = sum(len(module._forward_hooks) for module in model.modules())
        Steerer(model, directions, 7).answers(PROMPTS, PUSHES)
        assert sum(len(module._forward_hooks) for module in model.modules()) == hooks
        assert torch.equal(model(input_ids=ids, use_cache=False).logits, before)

    @pytest.mark.parametrize("length", [1, 2, 3])
    def test_a_prompt_too_short_for_the_last_tokens(self, length: int) -> None:
        """At least one token comes before those at which vectors are added; a shorter prompt is one line."""
        steerer = Steerer(tiny("mamba2"), {}, 4, last=3)
        problem = f"a prompt of {length} tokens has no token before its last 3, where vectors are added"
        said = f"{problem}; add vectors at fewer tokens, or use a longer template"
        with pytest.raises(UserError) as caught:
            steerer.answers([Prompt((5,) * length, 1, 2, "")], [None])
        assert str(caught.value) == said
        with pytest.raises(UserError) as caught:
            steerer.writes([[5] * length], [None], DRAWS[:1], following=True)
        assert str(caught.value) == said


class TestWrites:
    """Texts."""

    PUSHED: tuple[Push | None, ...] = (None, Push("one", RESIDUAL, 1, -2.0), Push("one", STATE, 0, 3.0), Push("one", BOTH, 2, 1.5))

    @pytest.mark.parametrize("following", [True, False])
    def test_texts_are_as_if_alone(
        self, following: bool, model: PreTrainedModel, directions: dict[str, Directions], last: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Texts together, each under its push, are those of a loop that reads a text anew for each token; draws near 0 and 1 too."""
        endless(model, monkeypatch)
        draws = DRAWS.copy()
        draws[0, :3] = 0.0, 1 - 1e-9, 0.5
        rows = list(zip((0, 1, 0, 2), self.PUSHED, strict=True))
        steerer = Steerer(model, directions, 256, last)
        found = steerer.writes([TEXTS[text] for text, _ in rows], [push for _, push in rows], draws[[text for text, _ in rows]], following)
        assert found == [written(model, TEXTS[text], draws[text], push, directions, last, following) for text, push in rows]
        assert found[0][:2] == found[2][:2] == [0, VOCABULARY - 1]
        assert {len(tokens) for tokens in found} == {DRAWS.shape[1]}

    def test_following_or_not(self, model: PreTrainedModel, directions: dict[str, Directions], monkeypatch: pytest.MonkeyPatch) -> None:
        """The first token is the same either way, since only later ones follow; without a push all are; with one they differ."""
        endless(model, monkeypatch)
        steerer = Steerer(model, directions, 256)
        for push in self.PUSHED:
            with_, without = (steerer.writes(TEXTS, [push] * 3, DRAWS, following) for following in (True, False))
            assert [tokens[0] for tokens in with_] == [tokens[0] for tokens in without]
            assert (with_ == without) == (push is None or idle(model, push)), push

    def test_a_text_alone(self, model: PreTrainedModel, directions: dict[str, Directions]) -> None:
        """Each text is what it is without the others, whatever their pushes."""
        steerer, pushes = Steerer(model, directions, 256), self.PUSHED[:3]
        together = steerer.writes(TEXTS, pushes, DRAWS, following=True)
        assert together == [steerer.writes([TEXTS[row]], [pushes[row]], DRAWS[row : row + 1], following=True)[0] for row in range(3)]

    @pytest.mark.parametrize("several", [False, True])
    def test_texts_end_at_eos(
        self, several: bool, model: PreTrainedModel, directions: dict[str, Directions], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A text ends with the first token that the checkpoint calls an end, be it one or several; the others go on."""
        endless(model, monkeypatch)
        steerer, pushes = Steerer(model, directions, 256), self.PUSHED[:3]
        whole = steerer.writes(TEXTS, pushes, DRAWS, following=True)
        ends = [whole[1][2], whole[2][3]] if several else [whole[1][2]]
        monkeypatch.setattr(model.config, "eos_token_id", ends if several else ends[0])
        cut = [next((place for place, token in enumerate(tokens, 1) if token in ends), len(tokens)) for tokens in whole]
        assert steerer.writes(TEXTS, pushes, DRAWS, following=True) == [tokens[:end] for tokens, end in zip(whole, cut, strict=True)]
        assert cut[1] <= 3 < max(cut)

    def test_nothing_to_draw(self, model: PreTrainedModel) -> None:
        """Without draws nothing is written."""
        assert Steerer(model, {}, 4).writes(TEXTS, [None] * 3, np.empty((3, 0)), following=True) == [[], [], []]


def endless(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away the tokens that end a text."""
    monkeypatch.setattr(model.config, "eos_token_id", None)
    monkeypatch.setattr(model.generation_config, "eos_token_id", None)
