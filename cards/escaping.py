"""Texts from tables, which may hold anything, as Markdown that shows them and does nothing else."""

from __future__ import annotations

import re
import unicodedata

UNSEEN = {"Cc", "Cs", "Zl", "Zp"}  # categories of letters that would move or break what stands around them
SHOWN = {"\n": "⏎", "\t": "⇥"}  # what stands for a break of a line and a tab, so that a text stays on its line
HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
MARKS = re.compile(r"([\\`*_\[\]|~$])")  # what Markdown reads as more than a letter


def one_line(text: str) -> str:
    """Return *text* on one line: line breaks and tabs as signs, other control characters as U+FFFD."""
    return "".join(SHOWN.get(letter) or ("\ufffd" if unicodedata.category(letter) in UNSEEN else letter) for letter in text)


def plain(text: str) -> str:
    """Return *text* for a sentence or a cell of a table: every reader of Markdown or HTML shows its letters as they are."""
    marked = MARKS.sub(r"\\\1", one_line(text.strip()))
    return "".join(HTML.get(letter, letter) for letter in marked)


def cell(text: str) -> str:
    """Return *text* without what would end a cell of a table, or the code in it."""
    return one_line(text.strip()).replace("|", "¦").replace("`", "ˋ")


def fence(lines: list[str]) -> str:
    """Return a fence that no line of *lines* closes."""
    longest = max((len(run) for line in lines for run in re.findall("~+", line)), default=0)
    return "~" * max(3, longest + 1)
