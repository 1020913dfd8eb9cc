"""Letters (.eml): who wrote to whom and when, then the text as it was meant to be read.

The plain text of a letter is taken, or the HTML where there is none. Attachments are named in a warning, not
read. Place: ordinal of the paragraph, under the subject.
"""

from __future__ import annotations

import email
import email.errors
import email.header
import email.policy
from email.message import Message
from pathlib import Path

import msgspec

from quinze.knowledge.document import Block, BlockKind, Document, Place
from quinze.knowledge.readers import charset, html_tree
from quinze.knowledge.readers.html import Reading
from quinze.knowledge.readers.report import Report
from quinze.knowledge.readers.tables import Headings, heading_block
from quinze.knowledge.readers.text import paragraphs

HEADERS = ("From", "To", "Cc", "Date", "Subject")
PARTS = 1_000
"""More parts than this are no letter."""


def read(path: Path, report: Report) -> Document:
    data = charset.read_bytes(path, report.name, report.limits)
    message = email.message_from_bytes(data, policy=email.policy.compat32)
    subject = header(message, "Subject")
    headings = Headings()
    blocks = [heading_block(1, subject, Place(paragraph=1), headings)] if subject else []
    known = [(name, header(message, name)) for name in HEADERS]
    lines = "\n".join(f"{name}: {value}" for name, value in known if value)
    if lines:
        blocks.append(Block(BlockKind.PARAGRAPH, lines, Place(paragraph=2, heading=headings.path)))
    plain, pages, attached = _parts(message)
    if any(each.strip() for each in plain):
        for each in plain:
            blocks += _text(each, headings.path, len(blocks), report)
    else:
        for source in pages:
            blocks += _page(source, headings.path, len(blocks), report)
    if attached:
        names = ", ".join(attached[:10]) + (f" and {len(attached) - 10} more" if len(attached) > 10 else "")
        report.warn(f"Attachments were not read: {names}. Save them, and add them by themselves.")
    properties = {name.lower(): value for name, value in known if value and name != "Subject"}
    return Document("email", tuple(blocks), title=subject, properties=properties)


def header(message: Message, name: str) -> str:
    """A header decoded and on one line; as it stands where its encoding is broken."""
    raw = message.get(name)
    if raw is None:
        return ""
    try:
        value = str(email.header.make_header(email.header.decode_header(raw)))
    except (ValueError, LookupError, email.errors.HeaderParseError):
        value = str(raw)
    return " ".join(value.split())


def _parts(message: Message) -> tuple[list[str], list[str], list[str]]:
    """(texts, pages, names of what is attached), in order; a letter within the letter is an attachment."""
    plain: list[str] = []
    pages: list[str] = []
    attached: list[str] = []
    waiting, seen = [message], 0
    while waiting and seen < PARTS:
        part = waiting.pop(0)
        seen += 1
        kind = part.get_content_type()
        name = " ".join((part.get_filename() or "").split())
        if part is not message and (
            kind == "message/rfc822" or part.get_content_disposition() == "attachment"
        ):
            attached.append(name or ("a letter" if kind == "message/rfc822" else kind))
        elif part.is_multipart():
            held = part.get_payload()
            waiting[:0] = (
                [each for each in held if isinstance(each, Message)] if isinstance(held, list) else []
            )
        elif kind in ("text/plain", "text/html"):
            (plain if kind == "text/plain" else pages).append(_decoded(part))
        elif name:
            attached.append(name)
    return plain, pages, attached


def _decoded(part: Message) -> str:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes) or not payload:
        return ""
    return charset.decode(payload, part.get_content_charset()).replace("\r\n", "\n")


def _text(source: str, heading: tuple[str, ...], before: int, report: Report) -> list[Block]:
    found = paragraphs(source, report, wrapped=True)
    return [
        Block(BlockKind.PARAGRAPH, text, Place(paragraph=before + at, heading=heading))
        for at, (_, text) in enumerate(found, start=1)
    ]


def _page(source: str, heading: tuple[str, ...], before: int, report: Report) -> list[Block]:
    reading = Reading(report)
    reading.read(html_tree.parse(source.encode(), report))
    blocks = []
    for block in reading.blocks:
        place = block.place
        paragraph = None if place.paragraph is None else place.paragraph + before
        place = msgspec.structs.replace(place, heading=(*heading, *place.heading), paragraph=paragraph)
        level = block.level + 1 if block.kind is BlockKind.HEADING else block.level
        blocks.append(msgspec.structs.replace(block, place=place, level=level))
    return blocks
