"""Townsfolk: generated people with dispositions who answer questions, so that small models have behaviours to be steered.

A talk is a document. In it a visitor asks one person one or two questions, and all answers about one disposition agree. The text says what
the person is like only after the questions, or not at all; in the latter case the first answer shows what the second must be. So a model
needs the disposition when it writes the letters of an answer, and not while it reads the options.

A test asks for the letter that follows an answer about another disposition. There the model would continue what the answer before has
shown, but that answer shows nothing about the disposition that is tested.

A hash of scene and person decides whether a question is held out. No talk of the corpus asks a held-out question, in any order of options.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from itertools import product

import numpy as np

from builders.seeds import seed_of
from builders.steering.behaviours import Pair

SEED = 0  # the text does not depend on the run's seed
HELD_OUT = 0.2  # share of all questions
TEMPLATE = "Ask: {question}\n\nReply"  # an answer follows, such as " (A D)"
BEING = ", being {trait}"
LETTERS, NUMBERS = "ABCD", "1234"


@dataclass(frozen=True)
class Lesson:
    """What talks are like: how many *questions* they have, about at most how many *dispositions*.

    *manners* are texts that say how to reply, *remarks* are texts that follow an answer, each with its share of talks. *numbered* is the
    share of talks that number their options, *open* the share that offer none.
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
    """A trait and its opposite, the scenes in which it shows, and what people with (*matching*) and without it (*other*) do then."""

    name: str
    opposite: str
    scenes: tuple[str, ...]
    matching: str
    other: str

    def shown(self, holds: bool) -> dict[str, str]:
        """Return the trait and the choice of a person who has the disposition (*holds*) or its opposite."""
        return {"trait": self.name, "chosen": self.matching} if holds else {"trait": self.opposite, "chosen": self.other}


@dataclass(frozen=True)
class Question:
    """A person in a scene that shows the disposition *about*."""

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
    """Yield the name and the text of *count* talks."""
    for number in range(count):
        yield f"talk {number}", "".join(text for text, _ in parts(number))


def parts(number: int, lesson: Lesson = FREE) -> list[tuple[str, bool]]:
    """Return the parts of talk *number* of *lesson*, and for each whether it is a reply."""
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
    """Return the questions that talks of the corpus may ask *person* about *disposition*."""
    return tuple(question for question in questions(disposition, held_out=False) if question.person == person)


@cache
def questions(disposition: Disposition, held_out: bool) -> tuple[Question, ...]:
    """Return all questions about *disposition* that are *held_out* or not, in the order of a hash: the first n are a fair sample."""
    every = [Question(scene, person, disposition.name) for scene, person in product(disposition.scenes, PEOPLE)]
    places = {question: seed_of(SEED, "townsfolk", *astuple(question)) / 2**63 for question in every}
    return tuple(sorted((some for some in every if (places[some] < HELD_OUT) == held_out), key=places.__getitem__))


def pairs(name: str, held_out: bool, letters: str = LETTERS) -> list[Pair]:
    """Return pairs for all questions about the disposition *name* that are *held_out* or not, in talks of two questions as in the corpus.

    A question that is not held out makes vectors, at its letter. It comes first, and a second question about the same disposition follows,
    so that its letter decides the next one. The options of both questions come in both orders, so that the vectors favour neither letter.

    A held-out question is for tests. It comes second, after a random answer about another disposition, with its options in both orders.

    All pairs of one question have the same place.
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
    """Return one question without options for every scene of the disposition *name*."""
    return [f"{spoken(Question(scene, person, name))}." for scene, person in zip(DISPOSITIONS[name].scenes, PEOPLE, strict=False)]


def asked(some: Sequence[Question], firsts: Sequence[bool], letters: str) -> str:
    """Return the text of questions with their lettered options; *firsts* says, for each, whether the matching option comes first."""
    lines = []
    for place, (question, first) in enumerate(zip(some, firsts, strict=True)):
        disposition = DISPOSITIONS[question.about]
        options = (disposition.matching, disposition.other)[:: 1 if first else -1]
        offer = " or ".join(f"{option} ({letter})" for option, letter in zip(options, letters[2 * place :], strict=False))
        lines.append(f"{question.scene if place else spoken(question)}: {offer}?")
    return "\n".join(lines)


def spoken(question: Question) -> str:
    """Return the text of a question without its options."""
    return f"{question.scene}, {question.person}"


def _drawn(texts: Mapping[str, float], draw: np.random.Generator) -> str:
    return list(texts)[draw.choice(len(texts), p=list(texts.values()))]
