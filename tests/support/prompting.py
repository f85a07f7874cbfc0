"""One small latent made by hand, in the form that explainers see: it fires on words about cold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from contexts import windows_of

from builders.explainers import chat, effects, short
from builders.explainers.chat import Known

if TYPE_CHECKING:
    from builders.contexts.contexts import Examples
    from builders.engines.requests import Chat

KINDS = (*chat.STYLES, "intervention", "short")
Window = list[tuple[bytes, float]]

# The tokens of a window and what the latent does on each. The largest activation of the latent is 9.6.
STRONG: Window = [  # adjacent tokens that merge, a third apart from them, and on the line break one below 0.3 of 8
    *((b"The", 0), (b" lake", 0), (b" had", 0), (b" frozen", 8), (b" over", 6.5), (b",", 0)),
    *((b"\n", 1), (b"and", 0), (b" ice", 3), (b" glit", 0), (b"tered", 0), (b".", 0)),
]
QUOTED: Window = [  # the latent's largest activation, and a quotation mark beside it
    *((b'"', 0), (b"Snow", 9.6), (b"!", 9), (b'"', 4), (b" she", 1.5), (b" said", 0)),
    *((b".", 0), (b"\n", 0), (b"\n", 5), (b"Nobody", 0), (b" moved", 0), (b".", 0)),
]
CUT: Window = [  # an ä of two tokens, both active, and half an é where the window ends
    *((b"Der", 0), (b" Schnee", 7), (b" f", 0), (b"\xc3", 5), (b"\xa4", 4.5), (b"llt", 0)),
    *((b" on", 0), (b" the", 0), (b" roof", 0), (b" of", 0), (b" the caf", 0), (b"\xc3", 0)),
]
WEAK: Window = [  # far below the latent's largest activation, so that all levels are 1
    *((b"He", 0), (b" put", 0), (b" on", 0), (b" a", 0), (b" coat", 0.5), (b",", 0)),
    *((b" for", 0), (b" it", 0), (b" was", 0), (b" cold", 0.9), (b" out", 0.2), (b".", 0)),
]
SILENT: list[bytes] = [
    b"The| train| had| stopped| at| noon|,| in| July|,| again|.",
    b"The| lake| had| thawed|,|\n|and| boats| lay| on| it|.",
    b'"|Rain|!|"| she| said|.|\n|\n|They| all| moved',
]
PROMOTES = [" snow", " ice", "\n", ',"', "\\xe2\\x80"]
SUPPRESSES = [" sun", ' "', ","]

WINDOWS: list[Window] = [QUOTED, STRONG, CUT, WEAK, *([(piece, 0.0) for piece in text.split(b"|")] for text in SILENT)]
PIECES = sorted({piece for window in WINDOWS for piece, _ in window})
KNOWN = Known(9.6, PROMOTES, SUPPRESSES)


def ids_of(pieces: list[bytes]) -> list[int]:
    """Return the token ids of *pieces*."""
    return [PIECES.index(piece) for piece in pieces]


def cold() -> Examples:
    """Return the latent's windows: four in which it fires, strongest first, and three in which it is silent."""
    tokens = np.array([ids_of([piece for piece, _ in window]) for window in WINDOWS], dtype=np.int32)
    activations = np.array([[value for _, value in window] for window in WINDOWS], dtype=np.float32)
    return windows_of(7, tokens, activations)


def caused() -> list[dict[str, Any]]:
    """Return the columns of the latent's INTERVENTIONS rows that the explainer reads; text before the window is not shown."""
    raised = [[b" ice", b"\n", b'"', b" Schnee", b" cold"], [b" frozen", b"Snow", b"\xc3", b",", b" coat"]]
    ends = [(STRONG, 4), (QUOTED, 2)]
    return [
        {"tokens": ids_of([b"Nobody", *(piece for piece, _ in window[:end])]), "start": 1, "raised": ids_of(tokens)}
        for (window, end), tokens in zip(ends, raised, strict=True)
    ]


def asked(kind: str, examples: Examples | None = None, known: Known = KNOWN) -> Chat:
    """Return the request of an explainer of *kind* about the latent, or about other *examples*."""
    if kind == "intervention":
        rows = caused() if examples is None else [{"tokens": window.tolist(), "start": 0, "raised": [1, 0]} for window in examples.tokens]
        return effects.conversation(rows, PIECES, effects.Settings())
    settings, shown = chat.Settings(kind, examples=6, silent=2), cold() if examples is None else examples
    return short.conversation(shown, PIECES, settings) if kind == "short" else chat.conversation(shown, known, PIECES, settings)


def rendered(request: Chat) -> str:
    """Return the messages of a request, the role of each on a line before it."""
    return "\n".join(f"=== {message.role} ===\n{message.content}" for message in request.messages) + "\n"
