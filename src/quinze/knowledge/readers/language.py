"""The language of a document, as far as search must know it: Chinese, Japanese, Korean, English, or unknown.

Told by the script of its letters and, for English, by its commonest words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from quinze.knowledge.document import Block

SAMPLE = 20_000
_SCRIPTS = {
    "zh": re.compile("[㐀-䶿一-鿿豈-﫿]"),
    "ja": re.compile("[぀-ヿ]"),
    "ko": re.compile("[가-힣]"),
}
_LETTERS = re.compile(r"[^\W\d_]")
_WORD = re.compile(r"[a-z']+")
_ENGLISH = frozenset(
    (
        "the", "of", "and", "to", "in", "is", "that", "for", "it", "with", "as", "was", "on", "are", "be",
        "by", "this", "at", "from", "or", "an", "not", "have",
    )
)  # fmt: skip


def language_of(blocks: Sequence[Block]) -> str:
    """ISO 639-1 code, or "" when in doubt."""
    text = ""
    for block in blocks:
        text += f"{block.text} "
        if len(text) > SAMPLE:
            break
    letters = len(_LETTERS.findall(text))
    if letters < 2:
        return ""
    counts = {language: len(script.findall(text)) for language, script in _SCRIPTS.items()}
    # A Chinese character says about as much as two and a half letters.
    if counts["ja"] * 10 > counts["zh"] + counts["ja"]:
        return "ja"
    if counts["ko"] * 4 > letters:
        return "ko"
    if counts["zh"] * 2.5 > letters - counts["zh"]:
        return "zh"
    words = _WORD.findall(text.lower())
    english = sum(word in _ENGLISH for word in words)
    return "en" if len(words) > 5 and english * 8 > len(words) else ""
