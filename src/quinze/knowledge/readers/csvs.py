"""CSV and its kin: the encoding and the delimiter are found, quoted cells may hold both, and rows have their
names.

Place: cells, as a spreadsheet would name them once it has opened the file.
"""

from __future__ import annotations

import collections
import csv
import io
from pathlib import Path

from quinze.knowledge.document import Document, Place
from quinze.knowledge.readers import charset, text
from quinze.knowledge.readers.report import Report
from quinze.knowledge.readers.sheet_tables import sheet_blocks

DELIMITERS = ",;\t|"
SAMPLE_CHARS = 100_000
SAMPLE_ROWS = 200
LONGEST_CELL = 1 << 20


def read(path: Path, report: Report) -> Document:
    content = charset.read_text(path, report)
    skipped, delimiter = find_delimiter(content)
    csv.field_size_limit(LONGEST_CELL)
    try:
        rows = list(csv.reader(io.StringIO(content, newline=""), delimiter=delimiter))
    except csv.Error:
        # A cell beyond all measure, most often a quote that is never closed: read it as the text it also is.
        report.warn("Its quotes do not match; it was read as plain text.")
        return text.read(path, report)
    for row in rows[:skipped]:
        row.clear()
    cells = [[cell.strip() for cell in row] for row in rows]
    blocks = []
    room = report.limits.text_chars
    for block in sheet_blocks(cells, Place(), tick=report.tick):
        blocks.append(block)
        room -= len(block.text)
        if room < 0:
            break
    return Document(report.format or "csv", tuple(blocks))


def find_delimiter(content: str) -> tuple[int, str]:
    """(lines that only speak to Excel, delimiter): the one that cuts most rows into as many cells."""
    first, _, _ = content.partition("\n")
    if first.lower().startswith("sep=") and len(first.strip()) == 5:
        return 1, first.strip()[4]
    sample = content[:SAMPLE_CHARS]
    best, best_score = ",", 0.0
    for delimiter in DELIMITERS:
        score = _agreement(sample, delimiter)
        # On a tie the earlier one, which is the more common one, stays.
        if score > best_score * 1.05:
            best, best_score = delimiter, score
    return 0, best


def _agreement(sample: str, delimiter: str) -> float:
    widths: collections.Counter[int] = collections.Counter()
    try:
        for number, row in enumerate(csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)):
            if number >= SAMPLE_ROWS:
                break
            if any(row):
                widths[len(row)] += 1
    except csv.Error:
        return 0.0
    if not widths:
        return 0.0
    width, count = max(widths.items(), key=lambda item: (item[1] * (item[0] > 1), item[0]))
    return 0.0 if width < 2 else count / widths.total() * (1 + min(width, 10) / 20)
