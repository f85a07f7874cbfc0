"""Stage `explanations`, killed half way."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import sqlite3
from threading import Event
from typing import TYPE_CHECKING

from explained import build, change, command, explains, latents_with_contexts, text_of
from llm_server import Body, Reply, content_of, serving
from project import digests

if TYPE_CHECKING:
    from pathlib import Path

CONCURRENCY = 8


def finished(folder: Path) -> None:
    """Run the stage to its end."""
    process = command(folder, "default")
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said


def cached(folder: Path) -> set[str]:
    """Return the questions whose answers the cache holds."""
    with sqlite3.connect(folder / ".interplake/answers.sqlite") as database:
        answers = [json.loads(text)["text"] for (text,) in database.execute("SELECT answer FROM answers")]
    return {text.rpartition(" ")[2] for text in answers}


def test_a_killed_stage_goes_on_where_it_was(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Killed outright with half of 200 latents answered, the stage asks no kept answer again and ends as if undisturbed."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    build(killed, tiny_checkpoint, 320, 8)
    count = len(latents_with_contexts(killed))
    assert count >= 200
    numbers = itertools.count()
    half, release = Event(), Event()

    def until_half(body: Body, attempt: int) -> Reply:
        if next(numbers) < count // 2:
            return explains(body, attempt)
        half.set()
        return Reply(explains(body, attempt).body, hold=release)

    with serving(until_half) as server:
        change(killed, {"base_url": server.url, "concurrency": CONCURRENCY, "timeout_s": 60.0}, default={"baseline": "permuted"})
        shutil.copytree(killed, whole)
        process = command(killed, "default")
        assert half.wait(120), process.communicate()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        answered, kept = set(server.answered), cached(killed)
        server.script = explains
        release.set()
        server.forget()
        finished(killed)
        again = dict(server.asked)
        server.forget()
        finished(whole)
        asked = set(server.asked)

    assert process.returncode == -signal.SIGKILL
    assert len(answered) >= count // 2 - CONCURRENCY
    assert len(answered - kept) <= CONCURRENCY
    assert set(again) == asked - kept
    assert set(again.values()) == {1}
    assert digests(killed / "build/explanations") == digests(whole / "build/explanations")
    assert text_of({}) == f"words numbered {content_of({})}"  # how the cache's answers are told apart
