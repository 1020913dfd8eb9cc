"""Where a sentence ends, in Chinese and in English, and a measure of length that needs no tokenizer.

Knows nothing of blocks. Every character of the text is in exactly one sentence, so that sentences can be cut
out of a document and be verbatim.
"""

from __future__ import annotations

import re

from quinze.embeddings.folding import CJK

_ABBREVIATIONS = frozenset(
    """
    mr mrs ms dr prof st jr sr vs etc e.g i.e fig figs eq eqs sec no nos vol pp p ch al cf approx dept est
    inc ltd co corp u.s u.k a.m p.m jan feb mar apr jun jul aug sep sept oct nov dec ref refs ed eds tab art
    para min max ca gen col lt rev hon gov sen rep
    """.split()  # noqa: SIM905
)
_END = re.compile(
    r"[。！？；…]+[”’」』）)】\"']*"
    r"|[.!?]+[\"'”’)\]]*(?=\s)"
    r"|\n\s*\n|\n(?=\s*(?:[-*•·]|\d+[.)、]|[（(]\d+[)）])\s)"
)
_LAST_WORD = re.compile(r"([A-Za-z.]+)$")
_TOKENS = re.compile(rf"[{CJK}]|[^\W{CJK}]+|[^\w\s]")
_LONG_WORD = 8


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """(start, end) of each sentence; they follow each other without a gap, blanks belonging to the one
    before.

    >>> [t[a:b] for t in ["Dr. Li came. 他来了。真的！"] for a, b in sentence_spans(t)]
    ['Dr. Li came. ', '他来了。', '真的！']
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for found in _END.finditer(text):
        end = found.end()
        if found.group()[0] == "." and _is_abbreviation(text, start, found.start(), end):
            continue
        while end < len(text) and text[end].isspace():
            end += 1
        if text[start:end].strip():
            spans.append((start, end))
            start = end
    if start < len(text):
        if text[start:].strip() or not spans:
            spans.append((start, len(text)))
        else:
            spans[-1] = (spans[-1][0], len(text))
    return spans


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the blanks around them.

    >>> sentences("It costs 3.50 EUR, e.g. in Rome. Why? 因为。")
    ['It costs 3.50 EUR, e.g. in Rome.', 'Why?', '因为。']
    """
    return [part for start, end in sentence_spans(text) if (part := text[start:end].strip())]


def estimate_tokens(text: str) -> int:
    """About how many tokens a language model would count: a Chinese character or a sign is one, a word one or
    more.

    >>> estimate_tokens("Hello, 世界")
    4
    """
    total = 0
    for token in _TOKENS.findall(text):
        total += 1 if len(token) <= _LONG_WORD else 1 + (len(token) - 1) // _LONG_WORD
    return total


def _is_abbreviation(text: str, start: int, dot: int, end: int) -> bool:
    word = _LAST_WORD.search(text, max(start, dot - 12), dot)
    if word is None:
        # "1. First", at the beginning of a line or of the text, numbers what follows.
        return text[start:dot].strip().isdigit()
    name = word[1].lower().lstrip(".")
    if name in _ABBREVIATIONS or (len(name) == 1 and word[1].isupper()):
        return True
    following = text[end:].lstrip()[:1]
    return following.islower() and following.isascii()
