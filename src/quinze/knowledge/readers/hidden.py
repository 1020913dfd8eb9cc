"""Characters that nobody sees: taken out of every text before it is stored, shown or given to a model.

Zero-width spaces, tag characters, direction overrides and control characters can hide words from the
reader's eye that a model would still obey, and they keep a search from finding what is plainly there.
Joiners stay where a script or an emoji needs them. White text on white paper is not known here.
"""

from __future__ import annotations

import re

import msgspec

from quinze.knowledge.document import Block, Document

INVISIBLE = re.compile(
    "["
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f"  # controls, except tab and line ends
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\ud800-\udfff"  # halves of a surrogate pair, which no text may hold
    "]"
)
# A joiner is needed between letters of joining scripts (Arabic, the Indic ones) and within an emoji; a
# variation selector after one visible character. Anywhere else they only hide.
_LOOSE_JOINER = re.compile(
    "(?<![\u0600-\u08ff\u0900-\u109f\u1780-\u18af\ufb50-\ufdff\ufe70-\ufefe\u2190-\u2bff\ufe0f\U0001f000-\U0001faff])[\u200c\u200d]+"
    "|(?<=[\u200c\u200d])[\u200c\u200d]+"
)
_LOOSE_SELECTOR = re.compile("(?:(?<=[\\s\ufe00-\ufe0f])|^)[\ufe00-\ufe0f]+")
_SUSPECT = re.compile(f"{INVISIBLE.pattern}|[\u200c\u200d\ufe00-\ufe0f\r\x85\u2028\u2029]")


def visible(text: str) -> str:
    """`text` without its invisible characters; line ends become line feeds."""
    if text.isascii() and text.isprintable():
        return text
    if _SUSPECT.search(text) is None:
        return text
    text = re.sub("\r\n?|\x85|\u2028|\u2029", "\n", text)
    text = INVISIBLE.sub("", text)
    return _LOOSE_SELECTOR.sub("", _LOOSE_JOINER.sub("", text))


def visible_document(document: Document) -> Document:
    """`document` with every text made visible; blocks that hold nothing then are dropped."""
    return msgspec.structs.replace(
        document,
        blocks=tuple(block for block in map(_visible_block, document.blocks) if block.text.strip()),
        title=visible(document.title).strip(),
        warnings=tuple(visible(warning) for warning in document.warnings),
        properties={visible(str(key)): _visible_value(value) for key, value in document.properties.items()},
    )


def _visible_block(block: Block) -> Block:
    place = block.place
    heading = tuple(visible(each) for each in place.heading)
    names = {
        name: visible(value)
        for name in ("sheet", "chapter", "symbol", "part")
        if (value := getattr(place, name)) is not None
    }
    if heading != place.heading or any(getattr(place, name) != value for name, value in names.items()):
        place = msgspec.structs.replace(place, heading=heading, **names)
    return Block(
        block.kind,
        visible(block.text),
        place,
        block.level,
        tuple(visible(cell) for cell in block.cells),
        tuple(visible(cell) for cell in block.header),
    )


def _visible_value(value: object) -> object:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, int | float | bool) or value is None:
        return value
    if isinstance(value, list | tuple):
        return [_visible_value(each) for each in value]
    return visible(str(value))
