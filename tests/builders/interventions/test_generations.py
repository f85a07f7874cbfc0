"""What a pushed model writes: the same luck on all sides, no look at its neighbours in a batch, and the KL asked for where it is scored."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from coders import noise, random_coder
from contexts import windows_of
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from builders.interventions.beginnings import beginnings
from builders.interventions.generations import (
    GENERATIONS,
    LATENT,
    RANDOM,
    Order,
    _texts,
    divergence,
    generation_rows,
    passages,
    random_direction,
)
from builders.interventions.interventions import Ablation, Push
from builders.interventions.pushing import Pusher, contribution
from builders.saes.coder import JumpReLU, Mounted, SparseCoder, TopK
from builders.saes.neurons import neurons
from builders.seeds import seed_of
from builders.subjects.sampling import sampled, stops_of

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from builders.contexts.contexts import Examples
    from builders.interventions.interventions import Intervention
    from builders.saes.coder import Coder

pytestmark = pytest.mark.numeric

Prompt = npt.NDArray[np.int32]
SIZE, WIDTH, VOCABULARY = 32, 24, 384
PIECES = [b"%d " % token for token in range(VOCABULARY)]
TOKENS = 6
PLANTED, EMPTY, MUTE = 5, 3, 4  # latents: that writes the next-token direction of WANTED; that writes nothing; that never fires
WANTED = 77


def loud(model: Any) -> Any:
    """Return a random model made ready to read, its head's rows of norm 2 so that its next tokens are unevenly likely."""
    model.eval().requires_grad_(False)
    head = model.get_output_embeddings()
    head.weight = nn.Parameter(2 * nn.functional.normalize(head.weight, dim=1), requires_grad=False)
    return model


def llama(checkpoint: Path) -> Any:
    """Return the tiny Llama."""
    from transformers import AutoModelForCausalLM

    return loud(AutoModelForCausalLM.from_pretrained(checkpoint))


def mamba() -> Any:
    """Return a random Mamba of three blocks, as wide as the Llama."""
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(
        vocab_size=VOCABULARY, hidden_size=SIZE, num_hidden_layers=3, state_size=4, eos_token_id=1, tie_word_embeddings=False
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return loud(MambaForCausalLM(config))


@pytest.fixture(scope="module", params=["llama", "mamba"])
def pusher(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Pusher:
    """Return a transformer or a recurrent model with an SAE after its last block but one, three latents of which are known."""
    model = llama(tiny_checkpoint) if request.param == "llama" else mamba()
    coder = random_coder(1, WIDTH, SIZE, JumpReLU(torch.zeros(WIDTH)))
    coder.w_dec[EMPTY] = 0
    coder.b_enc[MUTE] = -1e6
    coder.w_dec[PLANTED] = model.get_output_embeddings().weight[WANTED]
    return Pusher(model, Mounted(coder, "layers.1", "layers.1"), "cpu", batch=4)


def prompts(*lengths: int, seed: int = 0) -> list[Prompt]:
    """Return beginnings of these lengths."""
    draw = np.random.default_rng(seed)
    return [draw.integers(2, 300, length).astype(np.int32) for length in lengths]


def draws(n: int, tokens: int = TOKENS, seed: int = 0) -> npt.NDArray[np.float64]:
    """Return random numbers for *n* prompts."""
    return np.random.default_rng(seed).random((n, tokens))


def case(latent: int, n: int = 12, window: int = 10) -> tuple[Examples, npt.NDArray[np.int32]]:
    """Return windows of one latent anywhere in rows, and all rows; it fires at drawn places in all windows but the last two."""
    draw = np.random.default_rng(2)
    rows = draw.integers(2, 300, (n + 2, window + 6)).astype(np.int32)
    row, start = draw.permutation(n + 2), draw.integers(0, 7, n + 2)
    activations = (draw.random((n + 2, window)) < 0.2).astype(np.float32)
    activations[np.arange(n + 2), draw.integers(0, window, n + 2)] = 1
    activations[n:] = 0
    examples = windows_of(latent, rows[row[:, None], start[:, None] + np.arange(window)], activations)
    return replace(examples, row=row, start=start), rows


def rows_of(pusher: Pusher, latent: int, seed: int = 0, **orders: Order) -> list[dict[str, Any]]:
    """Return the valid GENERATIONS of one latent of toy windows."""
    rows = generation_rows("toy", orders, *case(latent), pusher, PIECES, seed)
    GENERATIONS.validate(rows)
    found: list[dict[str, Any]] = rows.to_pylist()
    return found


def of(direction: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of one direction."""
    return [row for row in rows if row["direction"] == direction]


def order(kl: float = 0.5, *, ablate: bool = False, most: int = 7, tokens: int = TOKENS) -> Order:
    """Return what a scorer asks for."""
    return Order(kl, ablate, most, tokens)


MANY = prompts(3, 9, 1, 12, 5, 5, 2, 8, 11)


class TestWriting:
    """How a model writes on."""

    def test_no_push_writes_the_clean_text(self, pusher: Pusher) -> None:
        """At strength 0 every token, and every probability of the first, is that of the clean text exactly."""
        clean, pushed = (pusher.write(MANY, draws(9), push) for push in (None, Push(pusher.direction(0), 0.0)))
        assert [tokens.tolist() for tokens in clean.tokens] == [tokens.tolist() for tokens in pushed.tokens]
        assert np.array_equal(clean.first, pushed.first)
        assert divergence(clean.first, pushed.first) == 0

    @pytest.mark.parametrize("push", [None, Push(noise(3, SIZE).numpy(), 3.0), Ablation(0)])
    def test_a_batch_changes_nothing(self, push: Intervention | None, pusher: Pusher) -> None:
        """Prompts continued one by one are continued as in batches with longer and shorter ones."""
        together = pusher.write(MANY, draws(9), push)
        for place, prompt in enumerate(MANY):
            alone = pusher.write([prompt], draws(9)[[place]], push)
            assert alone.tokens[0].tolist() == together.tokens[place].tolist()
            np.testing.assert_allclose(alone.first[0], together.first[place], atol=1e-3)

    def test_tokens_are_those_of_the_model_s_own_distribution(self, pusher: Pusher) -> None:
        """Each token is the one in whose share of the cumulative probability its draw falls, worked out text by text by hand."""
        written = pusher.write(MANY[:3], draws(3), None)
        for prompt, tokens, own in zip(MANY, written.tokens, draws(3), strict=False):
            for step, token in enumerate(tokens.tolist()):
                ids = torch.tensor([[*prompt.tolist(), *tokens[:step].tolist()]])
                below = pusher.model(input_ids=ids, use_cache=False).logits[0, -1].double().softmax(-1).cumsum(-1)
                assert (below[token - 1] if token else 0.0) - 1e-6 <= own[step] <= below[token] + 1e-6

    def test_the_push_goes_on_while_the_model_writes(self, pusher: Pusher) -> None:
        """The push is made at the prompt's last token and at every token written, not before: as when done by hand."""
        coder = pusher.mounted.coder
        written = pusher.write(MANY[:2], draws(2), Push(coder.directions(0, 1)[0].numpy(), 2.0))
        for prompt, tokens, own in zip(MANY, written.tokens, draws(2), strict=False):
            text = prompt.tolist()
            for step in range(TOKENS):
                logits = by_hand(pusher.model, text, len(prompt) - 1, 2.0 * coder.directions(0, 1)[0])
                text.append(int(sampled(logits.log_softmax(-1).numpy()[None], own[[step]])[0]))
            assert text[len(prompt) :] == tokens.tolist()

    def test_a_text_ends_where_the_model_ends_it(self, pusher: Pusher) -> None:
        """What ends a text is written, and nothing after it; other texts go on."""
        plain = pusher.write(MANY, draws(9), None)
        other = Pusher(pusher.model, pusher.mounted, "cpu")
        assert other.stops == {1}
        other.stops = {int(plain.tokens[0][2])}
        for before, after in zip(plain.tokens, other.write(MANY, draws(9), None).tokens, strict=True):
            ends = [place for place, token in enumerate(before.tolist()) if token in other.stops]
            assert after.tolist() == before[: ends[0] + 1 if ends else TOKENS].tolist()

    def test_a_planted_direction_gets_its_token_written(self, pusher: Pusher) -> None:
        """A latent whose direction is that of a token in the head makes it common in pushed texts; it is rare in clean and random ones."""
        rows = rows_of(pusher, PLANTED, strong=order(3.0, most=12))
        sides = [(LATENT, "clean"), (LATENT, "pushed"), (RANDOM, "clean"), (RANDOM, "pushed")]
        clean, pushed, same, random = (sum(row[f"{kind}_tokens"].count(WANTED) for row in of(name, rows)) for name, kind in sides)
        assert pushed >= 12
        assert max(clean, same, random) <= 2
        assert sum(f"{WANTED} " in row["pushed_text"] for row in of(LATENT, rows)) >= 6


def by_hand(model: nn.Module, text: list[int], since: int, push: Tensor) -> Tensor:
    """Return the logits of what follows *text* with *push* added after block 1 from position *since* on."""

    def add(module: nn.Module, inputs: Any, output: Any) -> Any:
        written = (output[0] if isinstance(output, tuple) else output).clone()
        written[0, since:] += push
        return (written, *output[1:]) if isinstance(output, tuple) else written

    handle = model.get_submodule(f"{model.base_model_prefix}.layers.1").register_forward_hook(add)
    try:
        logits: Tensor = model(input_ids=torch.tensor([text]), use_cache=False).logits[0, -1]
    finally:
        handle.remove()
    return logits.float()


class TestAblation:
    """A latent silenced."""

    def test_a_latent_that_never_fires_changes_nothing(self, pusher: Pusher) -> None:
        """Silencing a silent latent leaves text and probabilities as they are, with KL 0, no strength and no null."""
        for row in rows_of(pusher, MUTE, silenced=order(ablate=True)):
            assert row["pushed_tokens"] == row["clean_tokens"]
            assert (row["status"], row["kl"], row["strength"], row["kl_asked"], row["direction"]) == ("ok", 0, None, None, LATENT)

    def test_a_latent_that_fires_changes_something(self, pusher: Pusher) -> None:
        """Silencing one that fires moves the next token."""
        kl = {latent: rows_of(pusher, latent, silenced=order(ablate=True))[0]["kl"] for latent in range(8) if latent != EMPTY}
        assert max(kl.values()) > 0.01

    @pytest.mark.parametrize(
        "coder",
        [
            random_coder(7, WIDTH, SIZE, TopK(5)),
            random_coder(7, WIDTH, SIZE, TopK(5), "layer_norm"),
            random_coder(7, WIDTH, SIZE, TopK(5), "constant_norm"),
            neurons(SIZE, 6, True, 0),
        ],
    )
    def test_the_contribution_is_what_the_decoder_makes_of_the_latent(self, coder: Coder) -> None:
        """What is taken away is the decoding with the latent less that without it, in the scale of the stream; 0 where it is silent."""
        x = torch.randn(50, SIZE, generator=torch.Generator().manual_seed(1))
        code = coder.encode(x)
        kept = code.latent != 2
        rest = replace(code, vector=code.vector[kept], latent=code.latent[kept], value=code.value[kept])
        found = contribution(coder, 2, x)
        torch.testing.assert_close(found, coder.decode(code, x) - coder.decode(rest, x), rtol=1e-4, atol=1e-4)
        fires = torch.zeros(50, dtype=torch.bool)
        fires[code.vector[~kept]] = True
        assert fires.any()
        assert torch.equal(found[~fires], torch.zeros_like(found[~fires]))

    def test_it_is_taken_away_where_the_latent_fires(self) -> None:
        """In the model exactly the contribution is subtracted: where the stream holds ln 1, ln 5, ln 2, ln 2 the last becomes 0 = ln 1."""
        coder = SparseCoder(torch.eye(4), torch.zeros(4), torch.eye(4), torch.zeros(4), TopK(4), torch.zeros(4))
        shown = Pusher(Shown(), Mounted(coder, "block", "block"), "cpu")
        found = shown.logprobs([[0, 1], [2]], [1, 0], Ablation(3)).exp()
        assert found.tolist() == [pytest.approx([1 / 9, 5 / 9, 2 / 9, 1 / 9]), pytest.approx([1 / 7, 2 / 7, 3 / 7, 1 / 7])]


class Shown(nn.Module):
    """A model whose logits are its stream, which depends on the last token alone."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Identity()
        self.stream = torch.tensor([[9.0, 9, 9, 9], [1, 5, 2, 2], [1, 2, 3, 3]]).log()

    def forward(self, input_ids: Tensor, **_: Any) -> Any:
        """Return the stream as logits."""
        return SimpleNamespace(logits=self.block(self.stream[input_ids]))


class TestRows:
    """The GENERATIONS of a latent."""

    def test_rows_say_what_was_done(self, pusher: Pusher) -> None:
        """Rows fit the table, by scorer and direction; tokens and texts belong together, and texts begin where the window does."""
        rows = rows_of(pusher, 0, b=order(0.5), a=order(1.0, most=3, tokens=2))
        expected = [(name, direction, n) for name, most in (("a", 3), ("b", 7)) for direction in (LATENT, RANDOM) for n in range(most)]
        assert [(row["scorer"], row["direction"], row["prompt"]) for row in rows] == expected
        for row in rows:
            assert (row["sae"], row["latent"], row["status"]) == ("toy", 0, "ok")
            assert row["kl_asked"] == {"a": 1.0, "b": 0.5}[row["scorer"]]
            assert row["text"] == "".join(f"{token} " for token in row["tokens"][row["start"] :])
            for kind in ("clean_", "pushed_"):
                assert row[f"{kind}text"] == "".join(f"{token} " for token in row[f"{kind}tokens"])
                length = len(row[f"{kind}tokens"])
                assert length == {"a": 2, "b": TOKENS}[row["scorer"]] or row[f"{kind}tokens"][-1] in pusher.stops

    def test_beginnings_are_those_of_the_test_windows(self, pusher: Pusher) -> None:
        """Either direction is pushed after the same beginnings, which are whole from the first token of the row on."""
        test, whole = case(0)
        begun = beginnings(test, whole, 7)
        rows = rows_of(pusher, 0, only=order())
        for direction in (LATENT, RANDOM):
            own = of(direction, rows)
            assert [row["tokens"] for row in own] == [tokens.tolist() for tokens in begun.tokens]
            assert [row["example"] for row in own] == begun.number.tolist()
            assert [row["start"] for row in own] == begun.start.tolist()

    @pytest.mark.parametrize("kl", [0.1, 1.0, 2.0])
    def test_the_divergence_is_as_asked_where_it_is_scored(self, kl: float, pusher: Pusher) -> None:
        """On the very beginnings that are scored, the KL is the one asked for within a tenth, worked out anew for either direction."""
        reached = 0
        for latent in (0, 1, 2, EMPTY, PLANTED):
            test, whole = case(latent)
            begun = beginnings(test, whole, 7)
            clean = pusher.write(begun.tokens, draws(7), None).first
            own = pusher.direction(latent)
            directions = {LATENT: own, RANDOM: random_direction(own, seed_of(0, "random direction", latent))}
            for name, direction in directions.items():
                row = of(name, rows_of(pusher, latent, only=order(kl)))[0]
                pushed = pusher.write(begun.tokens, draws(7), Push(direction, row["strength"])).first
                assert row["kl"] == pytest.approx(divergence(clean, pushed), rel=1e-3)
                assert (row["status"] == "ok") == (abs(row["kl"] / kl - 1) <= 0.1)
                reached += row["status"] == "ok"
        assert reached == 8  # all but the latent that writes nothing

    def test_a_text_does_not_depend_on_what_else_is_asked(self, pusher: Pusher) -> None:
        """A window's continuations are the same for scorers that ask for more or fewer of them; another seed gives others."""
        many, few = (rows_of(pusher, 0, only=order(ablate=True, most=most)) for most in (12, 3))
        assert [row for row in many if row["example"] in {row["example"] for row in few}] != []
        by_window = {row["example"]: (row["clean_tokens"], row["pushed_tokens"]) for row in many}
        assert {row["example"]: (row["clean_tokens"], row["pushed_tokens"]) for row in few}.items() <= by_window.items()
        other = rows_of(pusher, 0, seed=1, only=order(ablate=True, most=12))
        assert sum(a["clean_tokens"] == b["clean_tokens"] for a, b in zip(many, other, strict=True)) <= 2

    def test_a_push_out_of_reach_is_said_so(self, pusher: Pusher) -> None:
        """A latent that writes nothing reaches a KL of 0, and so does its null: their rows say so, and hold the clean texts twice."""
        rows = rows_of(pusher, EMPTY, only=order(0.5))
        assert len(rows) == 14
        for row in rows:
            assert (row["status"], row["kl_asked"]) == ("out of reach", 0.5)
            assert row["kl"] == pytest.approx(0, abs=1e-6)
            assert row["pushed_tokens"] == row["clean_tokens"]

    def test_a_push_that_leaves_the_number_format_is_said_so(self, pusher: Pusher) -> None:
        """Where the model answers no numbers to the push, the KL is null and the status says so."""

        class Broken(Pusher):
            def logprobs(self, texts: Any, since: Any, intervention: Intervention | None = None) -> Tensor:
                found = super().logprobs(texts, since, intervention)
                return found * torch.nan if isinstance(intervention, Ablation) else found

        rows = rows_of(Broken(pusher.model, pusher.mounted, "cpu"), 0, only=order(ablate=True))
        assert {(row["status"], row["kl"]) for row in rows} == {("not finite", None)}

    def test_passages_are_the_rows_by_latent(self, pusher: Pusher) -> None:
        """A scorer gets the numbers, whole clean, pushed and random texts, status and KL of each latent; no random ones out of reach."""
        parts = {latent: rows_of(pusher, latent, only=order(0.5, most=3)) for latent in (0, EMPTY)}
        found = passages(GENERATIONS.rows([row for rows in parts.values() for row in rows]))
        assert set(found) == {0, EMPTY}
        for latent, rows in parts.items():
            own, pushed, null = found[latent], of(LATENT, rows), of(RANDOM, rows)
            assert (own.number.tolist(), own.status, own.kl) == ([0, 1, 2], pushed[0]["status"], pushed[0]["kl"])
            assert own.clean == [row["text"] + row["clean_text"] for row in pushed]
            assert own.pushed == [row["text"] + row["pushed_text"] for row in pushed]
            assert own.random == [row["text"] + row["pushed_text"] for row in null if latent != EMPTY]


class TestNull:
    """The random direction."""

    @given(st.integers(1, 200), st.floats(1e-3, 1e3), st.integers(0, 2**40))
    def test_it_is_as_long_as_the_latents_own(self, width: int, scale: float, seed: int) -> None:
        """Its length is that of the latent's direction, and the same address gives the same direction."""
        like = (scale * np.random.default_rng(1).standard_normal(width)).astype(np.float32)
        found = random_direction(like, seed)
        assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(like), rel=1e-4)
        assert np.array_equal(found, random_direction(like, seed))

    def test_it_points_anywhere(self) -> None:
        """Over addresses, its cosine with the latent's direction has mean 0 and variance 1 / width, as that of any drawn uniformly."""
        like = np.ones(50, dtype=np.float32)
        cosines = np.array([random_direction(like, seed) @ like / 50 for seed in range(2000)])
        assert abs(cosines.mean()) < 4 / np.sqrt(2000 * 50)
        assert cosines.var() == pytest.approx(1 / 50, rel=0.15)

    def test_all_sides_share_their_luck(self, pusher: Pusher) -> None:
        """The clean texts, those pushed along the latent's direction and those along the random one are sampled by equal draws."""
        seen = []

        class Watched(Pusher):
            def write(self, prompts: Any, draws: Any, intervention: Intervention | None) -> Any:
                seen.append((type(intervention), draws))
                return super().write(prompts, draws, intervention)

        rows_of(Watched(pusher.model, pusher.mounted, "cpu"), 0, only=order())
        assert [kind for kind, _ in seen] == [type(None), Push, Push]
        assert all(np.array_equal(seen[0][1], own) for _, own in seen)
        assert len(np.unique(seen[0][1])) == 7 * TOKENS

    def test_latents_have_directions_of_their_own_and_scorers_share_them(self, pusher: Pusher) -> None:
        """Two scorers that ask for the same get the same null; another latent and another seed have another."""
        rows = rows_of(pusher, 0, a=order(), b=order())
        texts = [[row["pushed_tokens"] for row in of(RANDOM, rows) if row["scorer"] == name] for name in ("a", "b")]
        strengths = {of(RANDOM, some)[0]["strength"] for some in (rows, rows_of(pusher, 1, a=order()), rows_of(pusher, 0, 1, a=order()))}
        assert texts[0] == texts[1]
        assert len(strengths) == 3


@given(st.lists(st.floats(-8, 0), min_size=1, max_size=20), st.floats(0, 1, exclude_max=True))
def test_a_draw_picks_the_token_whose_share_holds_it(logits: list[float], draw: float) -> None:
    """The token is the first whose cumulative probability is above the draw."""
    logprobs = torch.tensor([logits], dtype=torch.float32).log_softmax(-1).numpy()
    shares = np.exp(logprobs[0].astype(np.float64))
    token = int(sampled(logprobs, np.array([draw]))[0])
    assert shares[:token].sum() <= draw * shares.sum() + 1e-12
    assert draw * shares.sum() < shares[: token + 1].sum() + 1e-12


def test_a_token_that_cannot_be_is_never_drawn() -> None:
    """Tokens of probability 0 are drawn at neither end."""
    logprobs = np.log(np.array([[0.0, 0.5, 0.5, 0.0]] * 2, dtype=np.float32) + 1e-45).astype(np.float32)
    logprobs[:, [0, 3]] = -np.inf
    assert sampled(logprobs, np.array([0.0, 1 - 2.0**-53])).tolist() == [1, 2]


def test_a_divergence_by_hand() -> None:
    """KL((½, ½) ‖ (¼, ¾)) = ½ ln 2 + ½ ln ⅔, and that of equal ones 0; their mean is over prompts."""
    clean = np.log(np.array([[0.5, 0.5], [0.1, 0.9]], dtype=np.float32))
    pushed = np.log(np.array([[0.25, 0.75], [0.1, 0.9]], dtype=np.float32))
    assert divergence(clean, pushed) == pytest.approx((0.5 * np.log(2) + 0.5 * np.log(2 / 3)) / 2, rel=1e-5)


def test_a_character_cut_in_two_is_whole_in_the_passage() -> None:
    """Beginning and continuation join to the whole text; half a character at the border belongs to what follows."""
    pieces = [b"caf", b"\xc3", b"\xa9", b"!"]
    begin, rest = _texts(np.array([0, 1]), np.array([2, 3]), pieces)
    assert (begin, rest) == ("caf", "é!")
    assert _texts(np.array([0, 1]), np.array([3]), pieces) == ("caf", "\ufffd!")
    assert _texts(np.array([0]), (), pieces) == ("caf", "")


@pytest.mark.parametrize(("config", "generation", "stops"), [(1, None, {1}), (None, None, set()), ([2, 3], 4, {2, 3, 4})])
def test_texts_end_where_the_checkpoint_says(config: Any, generation: Any, stops: set[int]) -> None:
    """A checkpoint names no token that ends a text, one, or several, in either of two files."""
    names = {"config": SimpleNamespace(eos_token_id=config), "generation_config": SimpleNamespace(eos_token_id=generation)}
    assert stops_of(SimpleNamespace(**names)) == stops  # type: ignore[arg-type]  # all that is read of a model
