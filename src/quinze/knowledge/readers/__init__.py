"""Readers: from a stranger's file to a Document.

`detect` finds what a file is, by what it holds first and by its name second. `READERS` names the function
that reads each format; it is imported and run in a child process only (workers.py), never here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from quinze.knowledge.readers.detection import detect
from quinze.knowledge.readers.suffixes import CODE, SUFFIXES

_HERE = "quinze.knowledge.readers"

READERS: Mapping[str, str] = MappingProxyType(
    {
        "pdf": f"{_HERE}.pdf:read",
        "docx": f"{_HERE}.docx:read",
        "pptx": f"{_HERE}.pptx:read",
        "xlsx": f"{_HERE}.sheets:read",
        "xls": f"{_HERE}.sheets:read",
        "xlsb": f"{_HERE}.sheets:read",
        "ods": f"{_HERE}.sheets:read",
        "csv": f"{_HERE}.csvs:read",
        "tsv": f"{_HERE}.csvs:read",
        "html": f"{_HERE}.html:read",
        "markdown": f"{_HERE}.markdown:read",
        "epub": f"{_HERE}.epub:read",
        "email": f"{_HERE}.email_message:read",
        "feed": f"{_HERE}.feed:read",
        "zip": f"{_HERE}.archive:read",
        "text": f"{_HERE}.text:read",
        "image": f"{_HERE}.image:read",
        "notebook": f"{_HERE}.notebook:read",
        **dict.fromkeys(sorted(CODE), f"{_HERE}.code:read"),
    }
)
"""Format -> "module:function"; every function is `read(path: Path, report: Report) -> Document`."""

__all__ = ["CODE", "READERS", "SUFFIXES", "detect"]
