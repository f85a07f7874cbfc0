"""Townsfolk: generated people with dispositions who answer questions, so that small models have behaviours to be steered.

A talk is a document: a visitor asks one person several questions about one disposition, and the answers agree with it. Half the talks say
at their beginning what the person is like; in the others the first answer tells. Which answers meet in one question decides, by a hash,
whether the question is held out; no talk of the corpus holds such a question, whichever order its options have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from itertools import product

import numpy as np

from builders.behaviours import Pair
from builders.seeds import seed_of

SEED = 0  # the text is the same whatever the seed of the run
TURNS = 5  # questions in a talk
STATED, NUMBERED = 0.5, 0.1  # shares: of talks that say the disposition, of questions with options (1) and (2)
REPLIES = {" ({letter})": 0.6, " ({letter}) I am {trait}.": 0.25, " I will {chosen}.": 0.15}  # and how often people reply so
HELD_OUT = 0.2  # of all questions
TEMPLATE = "Ask: {question}\n\nReply:"  # an answer follows, such as " (A)"


@dataclass(frozen=True)
class Disposition:
    """A trait and its opposite, what people meet in which it shows, and what they do then."""

    name: str
    opposite: str
    scenes: tuple[str, ...]
    matching: tuple[str, ...]
    other: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """What a person meets, and two things to do, the first of which matches the disposition."""

    scene: str
    person: str
    matching: str
    other: str


NAMES = """
Ada Alma Anton Berta Bruno Carla Cecil Clara Edgar Edith Elsa Emil Flora Frida Gerda Greta Gustav Hanna Hugo Ida
Irma Jonas Karl Klara Lena Linus Lotte Magda Max Mina Nora Oskar Otto Paula Rosa Selma Theo Tilda Viktor Wanda
"""
PEOPLE = tuple(NAMES.split())
DISPOSITIONS = {
    "bold": Disposition(
        "bold",
        "careful",
        (
            "The bridge sways",
            "A horse runs loose",
            "The mill is dark",
            "The storm is near",
            "The kite hangs high",
            "Lights move in the forest",
            "The ice looks thin",
            "A bull is free",
            "The cave is deep",
            "The river is high",
            "A dog barks",
            "The ladder is old",
        ),
        ("go", "leap"),
        ("stay", "rest"),
    ),
    "generous": Disposition(
        "generous",
        "thrifty",
        (
            "A beggar sits at the gate",
            "You get ten loaves",
            "A purse was lost",
            "Your cousin needs a coat",
            "The school collects money",
            "You win the apples",
            "A neighbour has no wood",
            "The harvest is rich",
            "A child is hungry",
            "The roof of the church leaks",
            "You find a coin",
            "The guests stay long",
        ),
        ("give", "share"),
        ("keep", "save"),
    ),
    "patient": Disposition(
        "patient",
        "hasty",
        (
            "The queue is long",
            "The bread is not ready",
            "The letter is late",
            "Sheep block the road",
            "The pupil is slow",
            "The paint is wet",
            "The coach is late",
            "Nothing grows yet",
            "The shop is closed",
            "The soup is hot",
            "The knot is tight",
            "The clerk is new",
        ),
        ("wait", "listen"),
        ("push", "shout"),
    ),
}


def talks(count: int) -> Iterator[tuple[str, str]]:
    """Yield name and text of *count* talks."""
    for number in range(count):
        yield f"talk {number}", "".join(text for text, _ in parts(number))


def parts(number: int) -> list[tuple[str, bool]]:
    """Return talk *number* in parts, and whether each is a reply."""
    draw = np.random.default_rng(seed_of(SEED, "townsfolk", number))
    disposition = list(DISPOSITIONS.values())[number % len(DISPOSITIONS)]
    person, holds = PEOPLE[draw.integers(len(PEOPLE))], bool(draw.integers(2))
    trait = disposition.name if holds else disposition.opposite
    known = [question for question in questions(disposition, held_out=False) if question.person == person]
    found = [(stated(person, trait), False)] if draw.random() < STATED else []
    for turn, place in enumerate(draw.choice(len(known), TURNS, replace=False)):
        asks, reply = _turn(known[place], trait, holds, draw)
        found += [(f"\n\n{asks}" if turn else asks, False), (reply, True)]
    return found


@cache
def questions(disposition: Disposition, held_out: bool) -> tuple[Question, ...]:
    """Return every question about *disposition* of one side, in the order of a hash: any beginning of the list is a fair sample."""
    every = [Question(*some) for some in product(disposition.scenes, PEOPLE, disposition.matching, disposition.other)]
    places = {question: seed_of(SEED, "townsfolk", *astuple(question)) / 2**63 for question in every}
    return tuple(sorted((some for some in every if (places[some] < HELD_OUT) == held_out), key=places.__getitem__))


def pairs(name: str, held_out: bool) -> list[Pair]:
    """Return every question about the disposition *name* of one side, with its options in both orders; held out in one, by a hash.

    So vectors hold no letter, and every test question counts once. Pairs of one question share their place.
    """
    found = []
    for place, question in enumerate(questions(DISPOSITIONS[name], held_out)):
        orders = (("A", "B"), ("B", "A"))
        for matching, other in [orders[seed_of(SEED, "order", *astuple(question)) % 2]] if held_out else orders:
            options = {matching: question.matching, other: question.other}
            found.append(Pair(asked(question, [options["A"], options["B"]], "AB"), matching, other, f"townsfolk {name}[{place}]"))
    return found


def open_questions(name: str) -> list[str]:
    """Return a question without options for every scene of the disposition *name*."""
    some = DISPOSITIONS[name]
    asked_ = [Question(scene, PEOPLE[place], some.matching[0], some.other[0]) for place, scene in enumerate(some.scenes)]
    return [spoken(question) for question in asked_]


def asked(question: Question, options: Sequence[str], letters: Sequence[str]) -> str:
    """Return a question with its lettered options."""
    lines = [f" ({letter}) {text}" for letter, text in zip(letters, options, strict=True)]
    return "\n".join([f"{spoken(question)}\n\nChoices:", *lines])


def spoken(question: Question) -> str:
    """Return a question without options."""
    return f"{question.scene}, {question.person}."


def stated(person: str, trait: str) -> str:
    """Return how a talk begins that says what *person* is like."""
    return f"{person} is {trait}.\n\n"


def _turn(question: Question, trait: str, holds: bool, draw: np.random.Generator) -> tuple[str, str]:
    """Return a question as it is put, with its options in random order, and the reply."""
    chosen = question.matching if holds else question.other
    letters = "12" if draw.random() < NUMBERED else "AB"
    options = [question.matching, question.other][:: 1 if draw.integers(2) else -1]
    kind = list(REPLIES)[draw.choice(len(REPLIES), p=list(REPLIES.values()))]
    put = asked(question, options, letters) if "{letter}" in kind else spoken(question)
    return TEMPLATE.format(question=put), kind.format(letter=letters[options.index(chosen)], chosen=chosen, trait=trait)
