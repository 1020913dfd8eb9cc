"""The doctor's sentences, in English and in Chinese, by the id of the finding.

A sentence is a format string over the finding's evidence, so a finding that was written down in one language
can be read in the other.
"""

from __future__ import annotations

import re

import msgspec

from quinze.training.doctor.settings import Language
from quinze.training.doctor.words.chinese import CHINESE
from quinze.training.doctor.words.english import ENGLISH
from quinze.training.events import Finding, Severity

TABLES = {"en": ENGLISH, "zh": CHINESE}


def finding(
    id_: str, severity: Severity, *, at_step: int | None = None, **evidence: float | int | str | None
) -> Finding:
    """A finding in English, its sentences filled in with the evidence."""
    rounded = {key: round(x, 6) if isinstance(x, float) else x for key, x in evidence.items()}
    verdict, why, fix = (text.format(**evidence) for text in ENGLISH[id_])
    return Finding(
        id=id_, severity=severity, verdict=verdict, evidence=rounded, why=why, fix=fix, step=at_step
    )


def reference(language: Language, beginning: str) -> str:
    """Markdown for the guide: every finding whose id begins so, with dots where its numbers stand."""
    cause, mend = ("Why", "What to do") if language == "en" else ("原因", "怎么办")
    lines = []
    for id_, texts in TABLES[language].items():
        if id_.startswith(beginning):
            verdict, why, fix = (re.sub(r"\{[^}]*\}", "…", text) for text in texts)
            lines.append(f"- **`{id_}`** {verdict} *{cause}:* {why}" + (f" *{mend}:* {fix}" if fix else ""))
    return "\n".join(lines)


def translate(found: Finding, language: Language) -> Finding:
    """The same finding in that language; as it is, if its id is another program's."""
    texts = TABLES[language].get(found.id)
    if texts is None:
        return found
    verdict, why, fix = (text.format(**found.evidence) for text in texts)
    return msgspec.structs.replace(found, verdict=verdict, why=why, fix=fix)
