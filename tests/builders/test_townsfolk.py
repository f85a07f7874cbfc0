"""Townsfolk: what talks are made of, that answers agree, and that held-out questions stay out."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from builders.corpus import documents
from builders.townsfolk import DISPOSITIONS, PEOPLE, TEMPLATE, asked, open_questions, pairs, parts, questions, spoken, stated, talks

TALKS = 600
TALK = """Anton is thrifty.

Ask: The school collects money, Anton.

Choices:
 (A) save
 (B) share

Reply: (A)

Ask: The school collects money, Anton.

Choices:
 (A) keep
 (B) share

Reply: (A)

Ask: Your cousin needs a coat, Anton.

Choices:
 (A) save
 (B) give

Reply: (A)

Ask: The roof of the church leaks, Anton.

Choices:
 (A) give
 (B) keep

Reply: (B)

Ask: A neighbour has no wood, Anton.

Choices:
 (A) share
 (B) save

Reply: (B) I am thrifty."""
QUESTION = re.compile(r"Ask: (?P<scene>.*), (?P<person>\w+)\.\n\nChoices:\n \((.)\) (.*)\n \((.)\) (.*)\n\nReply:")
dispositions = pytest.mark.parametrize("name", DISPOSITIONS)


def told(text: str) -> list[tuple[str, str, tuple[str, str], tuple[str, str]]]:
    """Return scene, person and both lettered options of every question with options in *text*."""
    return [(scene, person, (one, first), (two, second)) for scene, person, one, first, two, second in QUESTION.findall(text)]


def test_a_talk_is_written_out() -> None:
    """One talk, word by word."""
    assert "".join(text for text, _ in parts(1)) == TALK


def test_a_talk_is_its_parts_and_depends_on_its_number_alone() -> None:
    """Talks are their parts joined, the same however many are asked for."""
    some = dict(talks(9))
    assert list(some.values()) == ["".join(text for text, _ in parts(number)) for number in range(9)]
    assert list(talks(3)) == list(some.items())[:3]


def test_replies_agree_with_what_the_person_is_like() -> None:
    """In every talk all replies are of one kind: that of the trait that is said at the beginning or in a reply, where one is."""
    for number in range(TALKS):
        some, found = list(DISPOSITIONS.values())[number % len(DISPOSITIONS)], parts(number)
        kinds = set()
        for (question, _), (reply, replied) in zip(found[-2 * 5 :: 2], found[-2 * 5 + 1 :: 2], strict=True):
            assert replied
            letter = re.match(r" \((.)\)", reply)
            options = {name: text for _, _, *both in told(question) for name, text in both}
            chosen = options[letter[1]] if letter else reply.removeprefix(" I will ").removesuffix(".")
            kinds.add(chosen in some.matching)
            assert chosen in some.matching + some.other
        whole = "".join(text for text, _ in found)
        assert len(kinds) == 1
        assert (some.opposite if kinds == {True} else some.name) not in re.findall(r"(?:is|am) (\w+)\.", whole)


def test_options_come_in_either_order() -> None:
    """The option that matches is as often the first as the second, so that a letter says nothing."""
    matching = {word for some in DISPOSITIONS.values() for word in some.matching}
    first = Counter(one in matching for _, text in talks(TALKS) for _, _, (_, one), _ in told(text))
    share = first[True] / first.total()
    assert abs(share - 0.5) < 4 * 0.5 / first.total() ** 0.5


@dispositions
def test_held_out_questions_are_in_no_talk(name: str) -> None:
    """No talk puts a held-out question, in either order of its options; about a fifth of all are held out."""
    some = DISPOSITIONS[name]
    known, held_out = (set(questions(some, side)) for side in (False, True))
    put = set()
    for _, text in talks(TALKS):
        for scene, person, (_, one), (_, two) in told(text):
            yes, no = (one, two) if one in some.matching else (two, one)
            put.add((scene, person, yes, no))
    assert not known & held_out
    assert len(held_out) / (len(known) + len(held_out)) == pytest.approx(0.2, abs=0.03)
    assert len(put & {(q.scene, q.person, q.matching, q.other) for q in known}) > 100
    assert not put & {(q.scene, q.person, q.matching, q.other) for q in held_out}


@dispositions
@pytest.mark.parametrize("held_out", [False, True])
def test_pairs_name_the_option_that_matches(name: str, held_out: bool) -> None:
    """Letters name the options; questions for vectors come in both orders, which share a place, those for tests in one of either."""
    found, some = pairs(name, held_out), questions(DISPOSITIONS[name], held_out)
    orders = Counter(pair.matching for pair in found)
    for pair in found:
        question = some[int(pair.place.split("[")[1].removesuffix("]"))]
        assert f"\n ({pair.matching}) {question.matching}" in pair.question
        assert f"\n ({pair.other}) {question.other}" in pair.question
    if held_out:
        assert len({pair.place for pair in found}) == len(found) == len(some)
        assert abs(orders["A"] - len(some) / 2) < 4 * len(some) ** 0.5 / 2
    else:
        assert orders == {"A": len(some), "B": len(some)}


def test_how_things_are_put() -> None:
    """Questions, statements and open questions, word by word."""
    question = questions(DISPOSITIONS["bold"], held_out=False)[0]
    assert spoken(question) == f"{question.scene}, {question.person}."
    assert asked(question, ["go", "stay"], "AB") == f"{spoken(question)}\n\nChoices:\n (A) go\n (B) stay"
    assert stated("Ada", "bold") == "Ada is bold.\n\n"
    assert open_questions("bold")[0] == f"The bridge sways, {PEOPLE[0]}."
    assert TEMPLATE.format(question="Why?") == "Ask: Why?\n\nReply:"


def test_talks_are_a_source_like_any_other() -> None:
    """Talks become documents, some of them held out by name."""
    rows = next(iter(documents(talks(40), 0.25)))
    assert rows["name"].to_pylist() == [f"talk {number}" for number in range(40)]
    assert 0 < sum(rows["held_out"].to_pylist()) < 40
