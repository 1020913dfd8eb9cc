"""Words for BM25: what of a text is indexed, and what of a question is looked up.

SQLite's own tokenizers take a Chinese sentence for one word. So the tokens are made here, alike for passages
and for questions, and handed to FTS5 separated by spaces:

    中文检索      中 中文 文 文检 检 检索 索      characters and pairs; a question looks up pairs
    proving       prove                          English, stemmed; café = cafe, ＡＢＣ = abc, 資料 = 资料
    parseArgs     parsearg pars arg              identifiers whole and in parts; max_tokens and GPT4 too
    1,234.50      1234.50 1234.5                 numbers as written, and without what does not change them

Knows nothing of SQLite but the characters that its `ascii` tokenizer takes for a word (see TOKEN_CHARACTERS).
"""

from __future__ import annotations

import itertools
import re
import threading

import msgspec
import snowballstemmer

from quinze.embeddings.folding import CJK, normalize, strip_accents
from quinze.embeddings.function_words import (
    CONTENT_PAIRS,
    ENGLISH_QUESTION,
    FUNCTION_CHARACTERS,
    FUNCTION_WORDS,
    QUESTION_PHRASES,
)

TOKEN_CHARACTERS = "_.+#"
"""Beside ASCII letters, digits and everything outside ASCII."""

_PIECE = re.compile(
    rf"[{CJK}]+"
    r"|\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d|[A-Za-z_])|\d+(?:\.\d+)*(?!\d|[A-Za-z_])"
    r"|[A-Za-z](?:\+\+|#)(?!\w)"
    rf"|[^\W{CJK}]+(?:['’][a-zA-Z]{{1,2}}(?!\w))?"
)
_IS_CJK = re.compile(f"[{CJK}]")
_IS_NUMBER = re.compile(r"[\d.,]+")
_IS_SIGN = re.compile(r"[A-Za-z](?:\+\+|#)")
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W_A-Za-z\d]+")
_POSSESSIVE = re.compile(r"['’]\w+$")

QUESTION = re.compile("|".join(sorted(QUESTION_PHRASES, key=len, reverse=True)))
_ENGLISH_QUESTION = re.compile(ENGLISH_QUESTION, re.IGNORECASE)


class Query(msgspec.Struct, frozen=True):
    """A question as it is looked up."""

    terms: tuple[str, ...]
    """Tokens, each once, in the question's order."""
    runs: tuple[tuple[str, ...], ...]
    """For the coverage of a passage: each word, with the terms any of which covers it. A Chinese character is
    covered by either pair that it stands in, for pairs across two words are no word."""
    ignored: tuple[str, ...]
    """Words that were left out because they say nothing of what is asked."""
    numbers: frozenset[str]
    """Those of `terms` that are numbers."""


class Analyzer:
    """Texts -> tokens. Remembers the words it has met: keep one. May be shared by threads."""

    MOST_REMEMBERED = 200_000

    def __init__(self) -> None:
        self._stemmer = snowballstemmer.stemmer("english")
        self._lock = threading.Lock()
        self._remembered: dict[str, tuple[str, ...]] = {}

    def tokens(self, text: str) -> list[str]:
        """Every token of a text, in order, repeated as often as it stands there.

        >>> Analyzer().tokens("parseArgs 中文字")
        ['parsearg', 'pars', 'arg', '中', '中文', '文', '文字', '字']
        """
        out: list[str] = []
        remembered = self._remembered
        for piece in _PIECE.findall(normalize(text)):
            tokens = remembered.get(piece)
            if tokens is not None:
                out += tokens
            elif _IS_CJK.match(piece):
                out.append(piece[0])
                for left, right in itertools.pairwise(piece):
                    out += (left + right, right)
            else:
                out += self._spaced(piece)
        return out

    def query(self, text: str) -> Query:
        """What of a question to look up; if nothing else is left, its function words after all."""
        terms: dict[str, None] = {}
        weak: dict[str, None] = {}
        runs: list[tuple[str, ...]] = []
        numbers: set[str] = set()
        text = normalize(text)
        for piece in _PIECE.findall(_ENGLISH_QUESTION.sub(" ", text)) or _PIECE.findall(text):
            if _IS_CJK.match(piece):
                self._cjk_query(piece, terms, weak, runs)
                continue
            tokens = self._spaced(piece)
            if _POSSESSIVE.sub("", piece.lower()) in FUNCTION_WORDS:
                weak.update(dict.fromkeys(tokens[:1]))
                continue
            is_number = _IS_NUMBER.fullmatch(piece) is not None
            if is_number:
                numbers.update(tokens)
            terms.update(dict.fromkeys(tokens))
            # Of an identifier each part counts for itself, and the whole for every part.
            if len(tokens) > 1 and not is_number:
                runs += [(part, tokens[0]) for part in tokens[1:]]
            elif tokens:
                runs.append(tokens)
        if not terms:
            return Query(tuple(weak), tuple((term,) for term in weak), (), frozenset())
        return Query(tuple(terms), tuple(dict.fromkeys(runs)), tuple(weak), frozenset(numbers))

    def _cjk_query(
        self, piece: str, terms: dict[str, None], weak: dict[str, None], runs: list[tuple[str, ...]]
    ) -> None:
        weak.update(dict.fromkeys(QUESTION.findall(piece)))
        for run in QUESTION.sub(" ", piece).split():
            pairs = [run[i : i + 2] for i in range(len(run) - 1)]
            content = [_is_content(pair) for pair in pairs]
            for i, character in enumerate(run):
                near = [pairs[j] for j in (i - 1, i) if 0 <= j < len(pairs) and content[j]]
                if near:
                    runs.append(tuple(near))
                elif character not in FUNCTION_CHARACTERS:
                    near = [character]
                    runs.append((character,))
                else:
                    weak[character] = None
                terms.update(dict.fromkeys(near))

    def _spaced(self, piece: str) -> tuple[str, ...]:
        """The tokens of a word, a number or a sign, of a script with spaces."""
        tokens = self._remembered.get(piece)
        if tokens is None:
            if _IS_NUMBER.fullmatch(piece):
                tokens = _number(piece)
            elif _IS_SIGN.fullmatch(piece):
                tokens = (piece.lower(),)
            else:
                tokens = self._word(_POSSESSIVE.sub("", piece))
            if len(self._remembered) >= self.MOST_REMEMBERED:
                self._remembered = {}
            self._remembered[piece] = tokens
        return tokens

    def _word(self, word: str) -> tuple[str, ...]:
        whole = strip_accents(word.lower()).strip("_")
        if not whole:
            return ()
        tokens: tuple[str, ...] = (self._stem(whole),)
        parts = [] if word.islower() and word.isalpha() else _PARTS.findall(word)
        if len(parts) > 1:
            tokens += tuple(self._stem(strip_accents(part.lower())) for part in parts)
        return tokens

    def _stem(self, word: str) -> str:
        if len(word) < 3 or not word.isascii() or not word.isalpha():
            return word
        # The stemmer keeps its place in the word in itself.
        with self._lock:
            stem: str = self._stemmer.stemWord(word)
        return stem


def match_expression(terms: tuple[str, ...]) -> str:
    """Any of these terms, in FTS5's language; each is quoted, so that nothing in it can be an operator.

    >>> match_expression(("bread", "near"))
    '"bread" OR "near"'
    """
    return " OR ".join('"' + term.replace('"', '""') + '"' for term in terms)


def _is_content(pair: str) -> bool:
    return pair in CONTENT_PAIRS or not (pair[0] in FUNCTION_CHARACTERS or pair[1] in FUNCTION_CHARACTERS)


def _number(written: str) -> tuple[str, ...]:
    whole = written.replace(",", "")
    short = whole.lstrip("0") or "0"
    if short.count(".") == 1:
        short = short.rstrip("0").rstrip(".")
    short = "0" + short if short.startswith(".") else short or "0"
    return (whole,) if short == whole else (whole, short)
