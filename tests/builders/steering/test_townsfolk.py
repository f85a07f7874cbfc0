"""Townsfolk: what talks are made of, that answers agree, and that held-out questions stay out."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from builders.steering.townsfolk import (
    DISPOSITIONS,
    FREE,
    LESSONS,
    LETTERS,
    NUMBERS,
    PEOPLE,
    SAME,
    SHORT,
    TEMPLATE,
    Lesson,
    asked,
    open_questions,
    pairs,
    parts,
    questions,
    spoken,
    talks,
)
from builders.text.sources import documents

TALKS = 600
TALK = """Ask: Your cousin needs a coat, Carla: keep (A) or give (B)?
The bridge sways: go (C) or stay (D)?

Reply (A C) I am bold."""
SAME_TALK = """Ask: The bridge sways, Otto: go (A) or stay (B)?
A bull is free: stay (C) or go (D)?

Reply (A D)"""
SHORT_TALK = """Ask: The bridge sways, Otto: go (A) or stay (B)?

Reply, to go (A)"""
OFFER = re.compile(r"(?:Ask: |\n)(?P<scene>[^\n]*?)(?:, (?P<person>\w+))?: (\w+) \((.)\) or (\w+) \((.)\)\?")
lessons = pytest.mark.parametrize("lesson", LESSONS.values(), ids=LESSONS)
dispositions = pytest.mark.parametrize("name", DISPOSITIONS)


def offers(text: str) -> list[tuple[str, str, dict[str, str]]]:
    """Return scene, person (of all questions of a talk) and options by letter of every question with options in *text*."""
    found = OFFER.findall(text)
    return [(scene, found[0][1], {one: first, two: second}) for scene, _, first, one, second, two in found]


@pytest.mark.parametrize(("number", "lesson", "text"), [(4, FREE, TALK), (0, SAME, SAME_TALK), (0, SHORT, SHORT_TALK)])
def test_a_talk_is_written_out(number: int, lesson: Lesson, text: str) -> None:
    """One talk of each lesson, word by word."""
    assert "".join(part for part, _ in parts(number, lesson)) == text


def test_a_talk_is_its_parts_and_depends_on_its_number_alone() -> None:
    """Talks are their parts joined, the same however many are asked for."""
    some = dict(talks(9))
    assert list(some.values()) == ["".join(text for text, _ in parts(number)) for number in range(9)]
    assert list(talks(3)) == list(some.items())[:3]


@lessons
def test_replies_agree_with_what_the_person_is_like(lesson: Lesson) -> None:
    """In a talk all letters and words about one disposition agree, there is a letter for every question, and kinds meet freely."""
    kinds = {word: (some.name, yes) for some in DISPOSITIONS.values() for yes in (True, False) for word in some.shown(yes).values()}
    met: Counter[int] = Counter()
    for number in range(TALKS):
        ((question, _), (reply, replied)) = parts(number, lesson)
        options = {letter: text for *_, both in offers(question) for letter, text in both.items()}
        letters = re.fullmatch(r" \(([\w ]+)\)( I am \w+\.)?", reply)
        chosen = [options[letter] for letter in letters[1].split()] if letters else [reply.removeprefix(" I ").removesuffix(".")]
        said = re.findall(r"(?:being|to|am) (\w+)", question.rpartition("Reply")[2] + reply)
        shown = {kinds[word] for word in (*chosen, *said)}
        assert replied
        assert len(shown) == len({name for name, _ in shown}) <= lesson.dispositions
        assert len(offers(question)) in {0, lesson.questions}
        assert len(chosen) == max(1, len(offers(question)))
        met[len({yes for _, yes in shown})] += 1
    assert (met[2] > TALKS / 10) == (lesson is FREE)


def test_short_talks_always_say_how_to_reply() -> None:
    """A short talk has one question with lettered options, a word on how to reply, and a letter."""
    for number in range(TALKS):
        (question, _), (reply, _) = parts(number, SHORT)
        assert len(offers(question)) == 1
        assert re.search(r"Reply, (being|to) \w+$", question)
        assert re.fullmatch(r" \([AB]\)", reply)


def test_options_come_in_either_order() -> None:
    """The option that matches is as often the first as the second, so that a letter says nothing."""
    matching = {some.matching for some in DISPOSITIONS.values()}
    first = Counter(next(iter(both.values())) in matching for _, text in talks(TALKS) for *_, both in offers(text))
    share = first[True] / first.total()
    assert abs(share - 0.5) < 4 * 0.5 / first.total() ** 0.5


@dispositions
def test_held_out_questions_are_in_no_talk(name: str) -> None:
    """No talk puts a held-out question, in either order of its options; about a fifth of all are held out."""
    some = DISPOSITIONS[name]
    known, held_out = (set(questions(some, side)) for side in (False, True))
    put = set()
    for _, text in talks(TALKS):
        put |= {(scene, person) for scene, person, both in offers(text) if some.matching in both.values()}
    assert not known & held_out
    every = len(known) + len(held_out)
    assert len(held_out) / every == pytest.approx(0.2, abs=3 * (0.2 * 0.8 / every) ** 0.5)
    assert len(put & {(q.scene, q.person) for q in known}) > 100
    assert not put & {(q.scene, q.person) for q in held_out}


@dispositions
@pytest.mark.parametrize("letters", [LETTERS, NUMBERS])
@pytest.mark.parametrize("held_out", [False, True])
def test_pairs_name_the_option_that_matches(name: str, letters: str, held_out: bool) -> None:
    """Vectors come from the first question before one about the same, tests are the second after another; options in every order."""
    disposition, (known, tested) = DISPOSITIONS[name], (letters[:2], letters[2:])
    found, some = pairs(name, held_out, letters), questions(disposition, held_out)
    orders = Counter(pair.matching.strip() for pair in found)
    for pair in found:
        question = some[int(pair.place.split("[")[1].removesuffix("]"))]
        (one, person, first), (other, _, second) = offers(f"Ask: {pair.question}")
        assert (other if held_out else one, person) == (question.scene, question.person)
        assert (*first, *second) == tuple(letters)
        asks = {pair.matching.strip(): disposition.matching, pair.other.strip(): disposition.other}
        assert asks == (second if held_out else first)
        assert (set(first.values()) == set(second.values())) is not held_out
        assert (pair.said in first) if held_out else (pair.said == "")
    times = 1 if held_out else 2
    assert orders == dict.fromkeys(tested if held_out else known, times * len(some))
    assert len({pair.place for pair in found}) == len(some)


@dispositions
def test_no_letter_is_in_pairs(name: str) -> None:
    """For either answer of a question, options come in every order: each letter and each order of the other question as often."""
    for held_out, times in ((False, 4), (True, 2)):
        found = pairs(name, held_out)
        for some in (found[place : place + times] for place in range(0, len(found), times)):
            assert len({pair.question for pair in some}) == times
            assert len({pair.place for pair in some}) == len({pair.said for pair in some}) == 1
            assert {(pair.matching, pair.other) for pair in some} == {(pair.other, pair.matching) for pair in some}


def test_how_things_are_put() -> None:
    """Questions and open questions, word by word."""
    question, another = questions(DISPOSITIONS["bold"], held_out=False)[:2]
    text = asked([question, another], [True, False], LETTERS)
    assert text == f"{question.scene}, {question.person}: go (A) or stay (B)?\n{another.scene}: stay (C) or go (D)?"
    assert spoken(question) == f"{question.scene}, {question.person}"
    assert open_questions("bold")[0] == f"The bridge sways, {PEOPLE[0]}."
    assert TEMPLATE.format(question="Why?") == "Ask: Why?\n\nReply"


def test_talks_are_a_source_like_any_other() -> None:
    """Talks become documents, some of them held out by name."""
    rows = next(iter(documents(talks(40), 0.25)))
    assert rows["name"].to_pylist() == [f"talk {number}" for number in range(40)]
    assert 0 < sum(rows["held_out"].to_pylist()) < 40
