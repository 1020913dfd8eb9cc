"""What the edge of the paper tore apart is mended, and what stands further to the right is a level deeper.

A sentence that runs over the foot of a page is given whole to the page on which it begins, the rest of its
paragraph stays on the next; a paragraph that runs over the foot of a column is one, with a box in each.
Given the blocks of all pages in reading order; knows nothing of lines and glyphs.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

import msgspec

from quinze.knowledge.document import Block, BlockKind, Place
from quinze.knowledge.readers.pdf_columns import is_cjk
from quinze.knowledge.readers.pdf_layout import join_lines
from quinze.knowledge.sentences import sentence_spans

SHORTEST = 40
"""A line of fewer characters may end where it likes: it is a label, a title, an address."""
INDENT = 0.012
"""Of the page's width: so much further to the right is a level deeper."""
DEEPEST = 6
_ENDS = ".!?。！？:：;；…\"”'’)）]】"


def mend(blocks: Sequence[Block], words: Set[str] = frozenset()) -> list[Block]:
    """`words` are those of the document, for hyphens at the break."""
    mended: list[Block] = []
    last: int | None = None
    for block in blocks:
        if block.place.part is not None:
            mended.append(block)
            continue
        if last is not None and _goes_on(mended[last], block):
            before = mended[last]
            end = len(block.text)
            boxes = before.place.boxes
            if block.place.page == before.place.page:
                boxes += block.place.boxes
            else:
                end = next((b for _, b in sentence_spans(block.text)), end)
            text = join_lines([before.text, block.text[:end]], frozenset(words))
            place = msgspec.structs.replace(before.place, boxes=boxes)
            mended[last] = msgspec.structs.replace(before, text=text, place=place)
            if not block.text[end:].strip():
                continue
            block = msgspec.structs.replace(block, text=block.text[end:].strip())
        last = len(mended)
        mended.append(block)
    return mended


def _goes_on(before: Block, after: Block) -> bool:
    one, two = before.place, after.place
    if before.kind not in (BlockKind.PARAGRAPH, BlockKind.LIST_ITEM) or after.kind is not BlockKind.PARAGRAPH:
        return False
    if not one.boxes or not two.boxes or one.heading != two.heading or one.page is None:
        return False
    next_column = two.page == one.page and two.boxes[0].top < one.boxes[-1].top
    if two.page != one.page + 1 and not next_column:
        return False
    if len(before.text) < SHORTEST or before.text[-1] in _ENDS:
        return False
    begins = after.text[0]
    return begins.islower() or (is_cjk(begins) and (is_cjk(before.text[-1]) or before.text[-1] in "，、"))


def nest(blocks: Sequence[Block]) -> list[Block]:
    """List items with their levels, told by where they begin; a list ends where something else stands."""
    nested: list[Block] = []
    begins: list[float] = []
    above: Place | None = None
    for block in blocks:
        place = block.place
        if block.kind is not BlockKind.LIST_ITEM or not place.boxes:
            begins.clear()
            above = None
            nested.append(block)
            continue
        left, top = place.boxes[0].left, place.boxes[0].top
        if above is None or above.page != place.page or top < above.boxes[0].top:
            begins.clear()
        while begins and left < begins[-1] - INDENT:
            begins.pop()
        if not begins or left > begins[-1] + INDENT:
            begins.append(left)
        above = place
        nested.append(msgspec.structs.replace(block, level=min(len(begins), DEEPEST)))
    return nested
