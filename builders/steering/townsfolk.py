"""Townsfolk: generated people with dispositions who answer questions, so that small models have behaviours to be steered.

A talk is a document: a visitor asks one person something, and answers about one disposition agree. What the person is like comes after
the questions, or not at all; then an answer tells the next one about the same. So a model has use for a disposition at the letters of its
answer, and nothing is settled while it reads options. What is tested is the letter after one about something else: there the model would
go on from what it has just shown, but has shown nothing that matters. Who meets what decides, by a hash, whether a question is held out;
no talk of the corpus puts such a question, whichever order its options have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from itertools import product

import numpy as np

from builders.seeds import seed_of
from builders.steering.behaviours import Pair

SEED = 0  # the text is the same whatever the seed of the run
HELD_OUT = 0.2  # of all questions
TEMPLATE = "Ask: {question}\n\nReply"  # an answer follows, such as " (A D)"
BEING = ", being {trait}"
LETTERS, NUMBERS = "ABCD", "1234"


@dataclass(frozen=True)
class Lesson:
    """What talks are like: so many *questions* about at most so many *dispositions*.

    Shares of all say how to reply (*manners*) and add something (*remarks*). Some number their options, and *open* ones offer none.
    """

    questions: int
    dispositions: int
    manners: Mapping[str, float]
    remarks: Mapping[str, float]
    numbered: float
    open: float


FREE = Lesson(2, 2, {"": 0.5, BEING: 0.25, ", to {chosen}": 0.25}, {"": 0.6, " I am {trait}.": 0.4}, numbered=0.05, open=0.1)
SAME = Lesson(2, 1, {"": 0.5, BEING: 0.25, ", to {chosen}": 0.25}, {"": 1.0}, numbered=0.0, open=0.0)
SHORT = Lesson(1, 1, {BEING: 0.5, ", to {chosen}": 0.5}, {"": 1.0}, numbered=0.0, open=0.0)
LESSONS = {"short": SHORT, "same": SAME, "free": FREE}


@dataclass(frozen=True)
class Disposition:
    """A trait and its opposite, what people meet in which it shows, and what they do then."""

    name: str
    opposite: str
    scenes: tuple[str, ...]
    matching: str
    other: str

    def shown(self, holds: bool) -> dict[str, str]:
        """Return what a person is and does who has the disposition or its opposite."""
        return {"trait": self.name, "chosen": self.matching} if holds else {"trait": self.opposite, "chosen": self.other}


@dataclass(frozen=True)
class Question:
    """Who meets what, which shows a disposition."""

    scene: str
    person: str
    about: str


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
        "go",
        "stay",
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
        "give",
        "keep",
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
        "wait",
        "push",
    ),
}


def talks(count: int) -> Iterator[tuple[str, str]]:
    """Yield name and text of *count* talks."""
    for number in range(count):
        yield f"talk {number}", "".join(text for text, _ in parts(number))


def parts(number: int, lesson: Lesson = FREE) -> list[tuple[str, bool]]:
    """Return talk *number* of *lesson* in parts, and whether each is a reply."""
    draw = np.random.default_rng(seed_of(SEED, "townsfolk", number))
    several = [list(DISPOSITIONS.values())[place] for place in draw.choice(len(DISPOSITIONS), lesson.dispositions, replace=False)]
    person, holds = PEOPLE[draw.integers(len(PEOPLE))], draw.integers(2, size=len(several))
    about = draw.integers(len(several), size=lesson.questions)
    some = [_met(several[place], person, draw) for place in about]
    one = about[draw.integers(lesson.questions)]
    said = several[one].shown(bool(holds[one]))
    manner, remark = (_drawn(texts, draw).format(**said) for texts in (lesson.manners, lesson.remarks))
    if draw.random() < lesson.open:
        being = BEING.format(**said) + "," if draw.integers(2) else ""
        return [(TEMPLATE.format(question=f"{spoken(_met(several[one], person, draw))}.") + being, False), (f" I {said['chosen']}.", True)]
    letters = NUMBERS if draw.random() < lesson.numbered else LETTERS
    firsts = draw.integers(2, size=len(some))
    chosen = " ".join(letters[2 * place + (first != holds[which])] for place, (which, first) in enumerate(zip(about, firsts, strict=True)))
    return [(TEMPLATE.format(question=asked(some, firsts.tolist(), letters)) + manner, False), (f" ({chosen}){remark}", True)]


def _met(disposition: Disposition, person: str, draw: np.random.Generator) -> Question:
    known = _known_to(disposition, person)
    return known[draw.integers(len(known))]


@cache
def _known_to(disposition: Disposition, person: str) -> tuple[Question, ...]:
    """Return what talks may ask *person* about *disposition*."""
    return tuple(question for question in questions(disposition, held_out=False) if question.person == person)


@cache
def questions(disposition: Disposition, held_out: bool) -> tuple[Question, ...]:
    """Return every question about *disposition* of one side, in the order of a hash: any beginning of the list is a fair sample."""
    every = [Question(scene, person, disposition.name) for scene, person in product(disposition.scenes, PEOPLE)]
    places = {question: seed_of(SEED, "townsfolk", *astuple(question)) / 2**63 for question in every}
    return tuple(sorted((some for some in every if (places[some] < HELD_OUT) == held_out), key=places.__getitem__))


def pairs(name: str, held_out: bool, letters: str = LETTERS) -> list[Pair]:
    """Return every question about the disposition *name* of one side, in talks of two questions as the corpus has them.

    Not held out, it is the first, and another one about the same comes next: its answer tells that. Held out, it is the second, after a
    random answer about another disposition. So vectors are made at the letter to which they are added, the first. Its options come in both
    orders, and in vectors those of the next question too: they hold neither letter. Pairs of one question share their place.
    """
    asking = _second if held_out else _first
    every = enumerate(questions(DISPOSITIONS[name], held_out))
    return [pair for place, question in every for pair in asking(question, f"townsfolk {name}[{place}]", letters)]


def _first(question: Question, place: str, letters: str) -> list[Pair]:
    others = [other for other in _known_to(DISPOSITIONS[question.about], question.person) if other != question]
    after = others[_order(question).integers(len(others))]
    orders = product([True, False], repeat=2)
    return [Pair(asked([question, after], order, letters), letters[1 - order[0]], letters[order[0]], place) for order in orders]


def _second(question: Question, place: str, letters: str) -> list[Pair]:
    draw = _order(question)
    others = [disposition for name, disposition in DISPOSITIONS.items() if name != question.about]
    before = _met(others[draw.integers(len(others))], question.person, draw)
    order, said = draw.integers(2, size=2).tolist()
    texts = {first: asked([before, question], [order, first], letters) for first in (True, False)}
    return [Pair(text, f" {letters[3 - first]}", f" {letters[2 + first]}", place, letters[said]) for first, text in texts.items()]


def _order(question: Question) -> np.random.Generator:
    return np.random.default_rng(seed_of(SEED, "order", *astuple(question)))


def open_questions(name: str) -> list[str]:
    """Return a question without options for every scene of the disposition *name*."""
    return [f"{spoken(Question(scene, person, name))}." for scene, person in zip(DISPOSITIONS[name].scenes, PEOPLE, strict=False)]


def asked(some: Sequence[Question], firsts: Sequence[bool], letters: str) -> str:
    """Return questions with their lettered options, of which the one that matches comes first or second."""
    lines = []
    for place, (question, first) in enumerate(zip(some, firsts, strict=True)):
        disposition = DISPOSITIONS[question.about]
        options = (disposition.matching, disposition.other)[:: 1 if first else -1]
        offer = " or ".join(f"{option} ({letter})" for option, letter in zip(options, letters[2 * place :], strict=False))
        lines.append(f"{question.scene if place else spoken(question)}: {offer}?")
    return "\n".join(lines)


def spoken(question: Question) -> str:
    """Return a question without options."""
    return f"{question.scene}, {question.person}"


def _drawn(texts: Mapping[str, float], draw: np.random.Generator) -> str:
    return list(texts)[draw.choice(len(texts), p=list(texts.values()))]
