"""Headings that are known by their words alone: "第三章 附则", "Chapter 12", where a file marks none.

Only what names itself a part, chapter or section is taken; a short or bold line is not.
"""

from __future__ import annotations

import re

LONGEST = 60
_LEVELS = (
    (1, re.compile(r"第[一二三四五六七八九十百千零〇\d]{1,6}[编編卷部篇](?=[\s:：]|$)")),
    (1, re.compile(r"(?:part|book|volume)\s+(?:\d{1,3}|[ivxlc]{1,8})\b[.:]?(?=\s|$)", re.IGNORECASE)),
    (2, re.compile(r"第[一二三四五六七八九十百千零〇\d]{1,6}[章回](?=[\s:：]|$)")),
    (2, re.compile(r"chapter\s+(?:\d{1,3}|[ivxlc]{1,8})\b[.:]?(?=\s|$)", re.IGNORECASE)),
    (3, re.compile(r"第[一二三四五六七八九十百千零〇\d]{1,6}[节節](?=[\s:：]|$)")),
)
_SENTENCE = re.compile(r"[。；;，,!?！？]$|\.$(?<!\d\.)(?<![IVXLC]\.)")


def outline_level(text: str) -> int | None:
    """1, 2 or 3 of a line that is such a heading; None of any other."""
    if len(text) > LONGEST or "\n" in text or _SENTENCE.search(text):
        return None
    return next((level for level, pattern in _LEVELS if pattern.match(text)), None)
