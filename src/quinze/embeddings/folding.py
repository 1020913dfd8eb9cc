"""One spelling of a text, so that what reads alike compares alike.

Full width becomes half width (NFKC), capitals small, traditional characters simplified, accents of Latin
letters are taken off. Knows nothing of words.
"""

from __future__ import annotations

import re
import unicodedata

from quinze.embeddings.han import SIMPLIFIED, TRADITIONAL

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
KANA_HANGUL = "\u3040-\u30ff\u31f0-\u31ff\uac00-\ud7af\u1100-\u11ff"
CJK = HAN + KANA_HANGUL
"""Inside of a regular expression's []: scripts written without spaces, or, as Hangul, best compared by
syllables."""

_TO_SIMPLIFIED = str.maketrans(TRADITIONAL, SIMPLIFIED)
_ACCENTED = re.compile(r"[\u00c0-\u024f\u1e00-\u1eff]+")


def normalize(text: str) -> str:
    """NFKC and simplified characters; capitals stay.

    >>> normalize("ＡＢＣ 臺灣資料庫")
    'ABC 台湾资料库'
    """
    if text.isascii():
        return text
    return unicodedata.normalize("NFKC", text).translate(_TO_SIMPLIFIED)


def fold(text: str) -> str:
    """`normalize`, then small letters without accents.

    >>> fold("Café ＡＢＣ")
    'cafe abc'
    """
    if text.isascii():
        return text.lower()
    return strip_accents(normalize(text).lower())


def strip_accents(text: str) -> str:
    """Latin letters without their accents; every other script as it was."""
    return _ACCENTED.sub(lambda found: _bare(found[0]), text)


def _bare(letters: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", letters) if not unicodedata.combining(c))
