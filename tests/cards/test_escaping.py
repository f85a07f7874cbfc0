"""Texts that hold anything, in Markdown: what a reader sees is what the text says."""

from __future__ import annotations

import pytest

from cards.escaping import cell, fence, one_line, plain
from cards.render import told


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ends a cell | here", r"ends a cell \| here"),
        ("<script>alert(1)</script> & more", "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more"),
        ("two\nlines\tand a tab", "two⏎lines⇥and a tab"),
        ("*loud* _soft_ `code` [link](x)", r"\*loud\* \_soft\_ \`code\` \[link\](x)"),
        (r"a \n that is two letters", r"a \\n that is two letters"),
        ("$x$ ~gone~", r"\$x\$ \~gone\~"),
        ("bell \x07, null \x00, line \u2028 end", "bell \ufffd, null \ufffd, line \ufffd end"),
        ("  Ελλάδα 🙂 ", "Ελλάδα 🙂"),
    ],
)
def test_a_text_in_a_sentence(text: str, shown: str) -> None:
    """Nothing in a text is read as Markdown, HTML or the end of a cell."""
    assert plain(text) == shown


def test_a_text_in_code() -> None:
    """In code there are no escapes, so what would end it or its cell is replaced by letters that look alike."""
    assert cell(" a | b ` c\nd ") == "a ¦ b ˋ c⏎d"
    assert one_line("a\r\nb") == "a\ufffd⏎b"


def test_a_fence_is_longer_than_any_in_it() -> None:
    """A fence has three tildes, or one more than the longest run of them in its lines."""
    assert fence([]) == fence(["no tilde", "~~ two"]) == "~~~"
    assert fence(["~~~~ a fence", "~"]) == "~~~~~"


def test_an_explanation_is_cut_before_it_is_escaped() -> None:
    """A long explanation is cut after a hundred letters, and no escape is cut in half."""
    shown = told({"status": "ok", "text": "|" * 200})

    assert shown == r"\|" * 99 + "…"
    assert told({"status": "cut off", "text": None}) == "*cut off*"
