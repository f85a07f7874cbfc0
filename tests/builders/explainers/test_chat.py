"""What explainers are shown of a window, which windows they are shown, and what is read from their answers."""

from __future__ import annotations

import itertools
import math
import re
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
from contexts import windows_of
from hypothesis import assume, given
from hypothesis import strategies as st

from builders.contexts.contexts import CONTEXTS, by_latent, strong
from builders.engines.prompts import LISTED, listed, marked_text, normalised
from builders.engines.requests import Answer, Failure
from builders.explainers import chat
from builders.explainers.chat import Known, Settings, conversation, read

if TYPE_CHECKING:
    import numpy.typing as npt

    from builders.contexts.contexts import Examples

Window = list[tuple[str, float]]
# Tokens of a window with the latent's activation on each; none holds a mark.
strength = st.one_of(st.just(0.0), st.floats(2**-10, 100, width=32))
window_of = st.lists(
    st.tuples(st.text("ab é日🙂\n\"'<>", min_size=1, max_size=4).filter(lambda t: "<" not in t and ">" not in t), strength), min_size=1
)


def arrays(window: Window) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], list[bytes]]:
    """Return a window's token ids, its activations, and the bytes of each id."""
    return np.arange(len(window), dtype=np.int32), np.array([a for _, a in window], dtype=np.float32), [text.encode() for text, _ in window]


class TestMarks:
    """Which tokens are marked, and how."""

    @pytest.mark.parametrize(
        ("activations", "marked"),
        [
            ([10, 3, 3.001, 2.999], [True, True, True, False]),
            ([0.01, 0.0031, 0.0029], [True, True, False]),
            ([0, 5, 0], [False, True, False]),
            ([0, 0, 0], [False, False, False]),
            ([1, 1, 1], [True, True, True]),
        ],
    )
    def test_marked_is_what_reaches_a_share_of_the_window(self, activations: list[float], marked: list[bool]) -> None:
        """Tokens that reach 0.3 of the largest activation of the window, whatever that is, are marked; in a silent window none."""
        assert strong(np.array(activations, dtype=np.float32)).tolist() == marked

    @given(window_of)
    def test_runs_share_one_pair_of_marks(self, window: Window) -> None:
        """The text is that of the runs of marked and unmarked tokens, the marked ones between << and >>."""
        tokens, values, pieces = arrays(window)
        flags = strong(values)
        runs = itertools.groupby(zip(flags.tolist(), (text for text, _ in window), strict=True), lambda pair: pair[0])
        expected = [("<<{}>>" if on else "{}").format("".join(text for _, text in run)) for on, run in runs]
        assert marked_text(tokens, flags, pieces) == "".join(expected)

    @given(window_of)
    def test_marks_lose_nothing(self, window: Window) -> None:
        """Without its marks the text is the window's."""
        tokens, values, pieces = arrays(window)
        text = marked_text(tokens, strong(values), pieces)
        assert text.replace("<<", "").replace(">>", "") == "".join(text for text, _ in window)
        assert text.count("<<") == text.count(">>")
        assert "<<>>" not in text

    @given(st.binary(max_size=12) | st.text("é日🙂a").map(str.encode), st.lists(st.booleans(), min_size=12, max_size=12), st.data())
    def test_marks_split_no_character(self, text: bytes, marked: list[bool], data: st.DataObject) -> None:
        """Where a character is cut across tokens, or the window begins or ends within one, marks stand beside it, not in it."""
        cuts = sorted(data.draw(st.sets(st.integers(1, len(text) - 1), max_size=11))) if len(text) > 1 else []
        pieces = [text[low:high] for low, high in itertools.pairwise([0, *cuts, len(text)])]
        assume(not any(mark in text for mark in (b"<", b">")))
        shown = marked_text(np.arange(len(pieces), dtype=np.int32), np.array(marked[: len(pieces)]), pieces)
        assert shown.replace("<<", "").replace(">>", "") == text.decode("utf-8", "replace")

    @pytest.mark.parametrize(
        ("pieces", "marked", "shown"),
        [
            ([b"f", b"\xc3", b"\xa4", b"llt"], [0, 1, 1, 0], "f<<ä>>llt"),
            ([b"f", b"\xc3", b"\xa4", b"llt"], [0, 0, 1, 0], "f<<ä>>llt"),
            ([b"f", b"\xc3", b"\xa4", b"llt"], [0, 1, 0, 0], "f<<ä>>llt"),
            ([b"f", b"\xc3", b"\xa4", b"llt"], [0, 0, 1, 1], "f<<ällt>>"),
            ([b"f", b"\xc3", b"\xa4llt", b"!"], [1, 1, 0, 0], "<<fä>>llt!"),
            ([b"\xa4", b"a", b"\xc3"], [1, 0, 0], "<<\ufffd>>a\ufffd"),
            ([b"\xa4", b"a", b"\xc3"], [0, 0, 1], "\ufffda<<\ufffd>>"),
            ([b"\xf0\x9f", b"\x99\x82"], [1, 1], "<<🙂>>"),
        ],
    )
    def test_a_character_of_several_tokens_is_marked_whole(self, pieces: list[bytes], marked: list[int], shown: str) -> None:
        """A character is marked where any of its tokens is."""
        assert marked_text(np.arange(len(pieces), dtype=np.int32), np.array(marked, dtype=bool), pieces) == shown


class TestLevels:
    """Activations as whole numbers."""

    @given(st.floats(2**-6, 1000, width=32), st.lists(st.integers(0, 1000), min_size=1))
    def test_levels_round_up_tenths_of_the_latents_largest(self, largest: float, thousandths: list[int]) -> None:
        """A level is the next whole number of tenths of the largest activation, which is 10; whole tenths are themselves."""
        values = np.array([float(Fraction(n, 1000) * Fraction(largest)) for n in thousandths], dtype=np.float32)
        assert normalised(values, largest).tolist() == [math.ceil(Fraction(n, 100)) for n in thousandths]

    def test_levels_stay_between_0_and_10(self) -> None:
        """What exceeds the latent's largest activation by rounding is 10, and what is slight is 1, not 0."""
        assert normalised(np.array([0, 0.001, 0.96, 0.961, 9.6, 9.7], dtype=np.float32), 9.6).tolist() == [0, 1, 1, 2, 10, 10]

    @given(window_of, st.floats(1, 3))
    def test_at_most_ten_are_listed(self, window: Window, over: float) -> None:
        """The strongest marked tokens are listed, of equal ones the first, in order of place and with their levels."""
        tokens, values, pieces = arrays(window)
        largest = max(1.0, over * float(values.max()))
        strongest = sorted(np.flatnonzero(strong(values)).tolist(), key=lambda place: (-values[place], place))[:LISTED]
        expected = [(window[place][0], int(normalised(values, largest)[place])) for place in sorted(strongest)]
        assert listed(tokens, values, largest, pieces) == expected

    def test_of_many_the_strongest_are_kept_in_place(self) -> None:
        """Of twelve marked tokens the two weakest are left out."""
        window = [(f"w{place}", value) for place, value in enumerate([9, 8, 7, 6, 10, 5, 5, 6, 7, 8, 9, 10])]
        tokens, values, pieces = arrays(window)
        assert listed(tokens, values, 20, pieces) == [(text, math.ceil(value / 2)) for text, value in window if value != 5]


# Windows that can be told from one another: the first token of window n is «n», the rest are drawn or given.
SIZE = 300
PIECES = [f"«{token}»".encode() for token in range(100)] + [f" t{token}".encode() for token in range(100, SIZE)]


def latent(active: int, silent: int, seed: int = 0) -> Examples:
    """Return *active* windows in which a latent fires, and *silent* ones in which it does not."""
    n = active + silent
    draw = np.random.default_rng(seed)
    tokens = np.concatenate([np.arange(n)[:, None], draw.integers(100, SIZE, (n, 7))], axis=1).astype(np.int32)
    activations = np.zeros(tokens.shape, dtype=np.float32)
    activations[:active, 3] = np.linspace(9, 1, active)
    return windows_of(3, tokens, activations, np.arange(n) < active)


def shown(examples: Examples, settings: Settings) -> list[int]:
    """Return which windows are shown, in order."""
    request = conversation(examples, Known(9.0, [" t100"], [" t101"]), PIECES, settings)
    return [int(number) for number in re.findall(r"«(\d+)»", request.messages[-1].content)]


@pytest.mark.parametrize("kind", chat.STYLES)
def test_marks_are_such_as_no_window_shown_holds(kind: str) -> None:
    """Where a window that is shown holds >>, guidelines, worked examples and windows have the next marks; else nothing changes."""
    examples, known, settings = latent(6, 3), Known(9.0, [], []), Settings(kind, examples=4, silent=1)
    held = int(examples.tokens[0][0])
    usual, other = (
        conversation(examples, known, [*PIECES[:held], piece, *PIECES[held + 1 :]], settings) for piece in (PIECES[held], b" >>> x")
    )
    first, *turns, last = [message.content for message in other.messages]

    assert "stand between ⟦ and ⟧;" in first
    assert not any("<<" in text for text in (first, *turns, last))
    assert all("⟦" in text for text in (*turns[::2], last))
    assert not any("⟦" in message.content for message in usual.messages)


class TestChosen:
    """Which windows are shown."""

    @given(
        st.integers(1, 60), st.integers(0, 20), st.integers(2, 50), st.sampled_from([kind for kind in chat.STYLES if kind != "contrastive"])
    )
    def test_windows_are_spread_over_the_order(self, active: int, silent: int, most: int, kind: str) -> None:
        """Activating windows alone are shown, in order, from the strongest to the weakest with even gaps, all if there are few."""
        places = shown(latent(active, silent), Settings(kind, examples=most))
        assert len(places) == min(active, most)
        assert (places[0], places[-1]) == (0, active - 1)
        gaps = {after - before for before, after in itertools.pairwise(places)}
        assert not gaps or (min(gaps) >= 1 and max(gaps) - min(gaps) <= 1)

    @given(st.integers(1, 30), st.integers(0, 20), st.integers(0, 8), st.integers(2, 20), st.integers(0, 5))
    def test_contrast_is_with_the_silent_windows_most_alike(self, active: int, silent: int, asked: int, more: int, seed: int) -> None:
        """Silent windows that share most with the activating ones shown, rare tokens counting more, follow those, as many as there are."""
        examples = latent(active, silent, seed)
        places = shown(examples, Settings("contrastive", examples=asked + more, silent=asked))
        firing, quiet = [p for p in places if p < active], [p for p in places if p >= active]
        assert places == firing + quiet == sorted(places)
        assert (len(firing), len(quiet)) == (min(active, more), min(silent, asked))
        windows = [set(window) for window in examples.tokens.tolist()]
        held = set().union(*(windows[place] for place in firing))
        sets = [held, *windows[active:]]

        def likeness(window: set[int]) -> float:
            rarity = {token: 1 / sum(token in one for one in sets) for token in window}
            return sum(rarity[token] for token in window & held) / sum(rarity.values())

        left = [likeness(windows[place]) for place in range(active, active + silent) if place not in quiet]
        assert max(left, default=0.0) <= min((likeness(windows[place]) for place in quiet), default=1.0) + 1e-9

    @pytest.mark.parametrize(("examples", "silent"), [(5, 5), (3, 5), (1, 1)])
    def test_there_is_no_contrast_without_activating_windows(self, examples: int, silent: int) -> None:
        """Where as many silent windows are asked for as windows in all, an activating one is shown nevertheless."""
        places = shown(latent(10, 10), Settings("contrastive", examples=examples, silent=silent))
        assert min(places) == 0

    def test_one_window_is_the_strongest(self) -> None:
        """Asked for one window, the explainer shows the first."""
        assert shown(latent(10, 0), Settings("default", examples=1)) == [0]

    @pytest.mark.parametrize("kind", chat.STYLES)
    def test_windows_of_scorers_are_never_shown(self, kind: str) -> None:
        """Of a latent's CONTEXTS only windows of the training split reach an explainer, silent ones included."""
        both = latent(8, 8)
        record = {"sae": "toy", "latent": 3, "quantile": None, "row": 0, "start": 0, "text": ""}
        records = [
            record
            | {"split": "test" if place % 2 else "train", "example": place // 2, "kind": "activating" if place < 8 else "random"}
            | {"tokens": both.tokens[place].tolist(), "activations": both.activations[place].tolist()}
            | {"neighbour": None, "neighbour_activations": []}
            for place in range(16)
        ]
        (examples,) = by_latent(CONTEXTS.rows(records), "train")
        places = shown(examples, Settings(kind, examples=16, silent=4))
        assert places == [0, 2, 4, 6, *([8, 10, 12, 14] if kind == "contrastive" else [])]


# What models answer → what is read, or the status of the failure.
TOLD: dict[str, str] = {
    "[EXPLANATION]: words for frozen water": "words for frozen water",
    "[EXPLANATION]:words for ice": "words for ice",
    "[EXPLANATION]:   words for ice   ": "words for ice",
    "[EXPLANATION]: words for ice\n\n\n": "words for ice",
    "\n\n[EXPLANATION]: words for ice": "words for ice",
    "[EXPLANATION]:\nwords for ice": "words for ice",
    "[EXPLANATION]: words for ice\nand for snow": "words for ice and for snow",
    "[EXPLANATION]: words\tfor\r\nice": "words for ice",
    "The tokens are all cold.\n[EXPLANATION]: words for ice": "words for ice",
    "1. ice; snow\n2. after: lake\n3. Most are cold.\n[EXPLANATION]: words for ice": "words for ice",
    "Sure! [EXPLANATION]: words for ice": "words for ice",
    "[EXPLANATION]: a draft\nOn second thoughts:\n[EXPLANATION]: words for ice": "words for ice",
    "[EXPLANATION]: a draft [EXPLANATION]: words for ice": "words for ice",
    "I am to end with [EXPLANATION]: and a sentence.\n[EXPLANATION]: words for ice": "words for ice",
    "<think>[EXPLANATION]: perhaps verbs</think>\n[EXPLANATION]: words for ice": "words for ice",
    "[EXPLANATION]: words for ice\n[EXPLANATION]:": "words for ice",
    "[EXPLANATION]: words for ice\n[EXPLANATION]: \n": "words for ice",
    '[EXPLANATION]: the word "ice"': 'the word "ice"',
    "[EXPLANATION]: er": "er",
    "[EXPLANATION]: house, box, area, way": "house, box, area, way",
    "[EXPLANATION]: **, ##, __": "**, ##, __",
    "[EXPLANATION]: text in [brackets]: and a colon": "text in [brackets]: and a colon",
    "[EXPLANATION]: le café, Ελλάδα, 日本 🙂": "le café, Ελλάδα, 日本 🙂",
    "[EXPLANATION]:\u00a0words\u3000for ice": "words for ice",
    "[EXPLANATION]: None": "None",
    "[EXPLANATION]: 0": "0",
    "**[EXPLANATION]:** words for ice": "words for ice",
    "**[EXPLANATION]**: words for ice": "words for ice",
    "**[EXPLANATION]: words for ice**": "words for ice",
    "**[EXPLANATION]: words for ice**\n": "words for ice",
    "*[EXPLANATION]:* words for ice": "words for ice",
    "__[EXPLANATION]:__ words for ice": "words for ice",
    "`[EXPLANATION]:` words for ice": "words for ice",
    "`[EXPLANATION]: words for ice`": "words for ice",
    "**[EXPLANATION]:** words for **ice**": "words for **ice**",
    "### [EXPLANATION]: words for ice": "words for ice",
    "[explanation]: words for ice": "words for ice",
    "[Explanation]: words for ice": "words for ice",
    "[EXPLANATION] : words for ice": "words for ice",
}
UNTOLD = [
    "",
    "   \n",
    "words for ice",
    "EXPLANATION: words for ice",
    "The explanation is that all marked words are about ice.",
    "I'm sorry, but I can't help with that.",
    "I cannot find any pattern in these excerpts.",
    "[EXPLANATION]",
    "[EXPLANATION]:",
    "[EXPLANATION]: ",
    "[EXPLANATION]:\n\n",
    "**[EXPLANATION]:**",
    "**[EXPLANATION]:** \n",
    "[INTERPRETATION]: words for ice",
    "[EXPLANATION: words for ice",
]
CUT = [
    "",
    "1. ice; snow\n2. after",
    "[EXPLANATION]:",
    "[EXPLANATION]: ",
    "[EXPLANATION]: words for",
    "[EXPLANATION]: a draft\nOn second",
    "**[EXPLANATION]:** wor",
]


class TestRead:
    """What is read from an answer."""

    @pytest.mark.parametrize("text", TOLD)
    def test_the_explanation_follows_the_last_marker(self, text: str) -> None:
        """What follows the last marker that anything follows is the explanation, on one line, without bold type around the marker."""
        assert read(Answer(text)) == TOLD[text]

    @pytest.mark.parametrize("text", UNTOLD)
    def test_an_answer_without_explanation_is_a_failure(self, text: str) -> None:
        """Where there is no marker, or nothing after it, the answer is no explanation, and its beginning is told in one line."""
        told = read(Answer(text))
        assert isinstance(told, Failure)
        assert told.status == "no explanation"
        assert repr(text.strip()[:20])[:-1] in told.reason
        assert "\n" not in told.reason

    @pytest.mark.parametrize("text", CUT)
    def test_an_answer_that_was_cut_off_is_a_failure(self, text: str) -> None:
        """An answer that ran out of tokens before or within its explanation is none, and the setting to raise is named."""
        told = read(Answer(text, finish="length", output_tokens=17))
        assert isinstance(told, Failure)
        assert told.status == "cut off"
        assert "17 tokens" in told.reason
        assert "`max_tokens`" in told.reason

    @given(st.text())
    def test_any_answer_is_read(self, text: str) -> None:
        """Whatever is answered, the outcome is a failure or one line of text that is not empty."""
        for answer in (text, f"[EXPLANATION]:{text}", f"**[EXPLANATION]:** {text}"):
            told = read(Answer(answer))
            assert isinstance(told, Failure) or (told.strip() == told != "" and len(told.splitlines()) == 1)
