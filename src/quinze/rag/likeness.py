"""How far a text has a word of the question: itself, another word for it, or only its beginning.

Given a word and the terms of a text. Knows nothing of documents or scores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from quinze.rag.words import Word, is_han

SYNONYM, SIMILAR, SCATTERED = 0.85, 0.7, 0.3
"""What a word of the question is worth when another word for it is there, when only its beginning agrees
("apply", "application"), or only the Chinese character is there."""
NAME_NEAR = 0.4
"""The exponent that makes a name count nearly whole where it only stands near: it is seldom repeated."""


def found(word: Word, places: Sequence[tuple[float, set[str]]]) -> float:
    """What the best find of a word in `places` is worth. A name is seldom repeated: near is nearly here."""
    best = 0.0
    for worth, terms in places:
        if worth > best and terms:
            best = max(best, worth * likeness(word, terms))
    return best**NAME_NEAR if word.is_name else best


def likeness(word: Word, terms: set[str]) -> float:
    """`agreement`, or what a synonym is worth."""
    best = agreement(word, terms)
    return max(best, SYNONYM) if best < SYNONYM and not terms.isdisjoint(word.synonyms) else best


def agreement(word: Word, terms: set[str]) -> float:
    """1 if the word is among the terms, less if only something like it is."""
    if not terms.isdisjoint(word.terms) or not terms.isdisjoint(word.translations):
        return 1.0
    if any(phrase <= terms for phrase in word.phrases):
        return 1.0
    first = word.terms[0]
    if is_han(first):
        common = set(first).intersection(*word.terms)
        return SCATTERED if common and common <= terms else 0.0
    if len(first) < 5 or word.is_name:
        return 0.0
    if word.alike is None:
        return SIMILAR if any(_begin_alike(first, term) for term in terms) else 0.0
    return SIMILAR if not terms.isdisjoint(word.alike) else 0.0


def compared(word: Word, vocabulary: Collection[str]) -> Word:
    """The word with its `alike`: comparing it with every text is then quick."""
    first = word.terms[0]
    return dataclasses.replace(
        word, alike=frozenset(term for term in vocabulary if _begin_alike(first, term))
    )


def _begin_alike(one: str, other: str) -> bool:
    """Whether two stems agree in three quarters of the longer one: "appli", "applic"."""
    least = max(5, -(-3 * max(len(one), len(other)) // 4))
    return len(other) >= least and one[:least] == other[:least]
