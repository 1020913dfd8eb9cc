"""The shapes of one slide in the order in which an eye meets them: from the top, then from the left.

Groups are opened, a placeholder without a place of its own takes that of its layout. Knows nothing of text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from quinze.knowledge.readers.docx_numbering import integer
from quinze.knowledge.readers.packed import Element

P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
NESTED_MOST = 50
# Shapes whose tops differ by less than this share of an inch stand in one row.
ROW_EMU = 914_400 // 8

Frame = tuple[float, float, float, float]
"""Scale and offset of a group: (scale x, offset x, scale y, offset y)."""


@dataclass(slots=True)
class Shape:
    element: Element
    kind: str
    """"sp", "pic", "graphicFrame", "cxnSp"."""
    placeholder: str | None
    """Type of the placeholder ("title", "body", "sldNum", ...); None for a shape of the author's own."""
    top: float
    left: float
    order: int

    @property
    def is_title(self) -> bool:
        return self.placeholder in ("title", "ctrTitle")


def shapes_of(tree: Element, layouts: list[Element]) -> list[Shape]:
    """Shapes of a p:spTree, titles first. `layouts`: the trees of its layout and master, nearest first."""
    shapes = list(_walk(tree, layouts, (1, 0, 1, 0), 0))
    for order, shape in enumerate(shapes):
        shape.order = order
    shapes.sort(key=lambda shape: (not shape.is_title, shape.top))
    # Rows: a shape belongs to the row of the one above it while their tops are close.
    row, row_top = 0, float("-inf")
    keys: dict[int, tuple[bool, int, float, int]] = {}
    for shape in shapes:
        if shape.top - row_top > ROW_EMU:
            row, row_top = row + 1, shape.top
        keys[shape.order] = (not shape.is_title, row, shape.left, shape.order)
    return sorted(shapes, key=lambda shape: keys[shape.order])


def _walk(tree: Element, layouts: list[Element], frame: Frame, depth: int) -> Iterator[Shape]:
    for element in tree:
        if not isinstance(element.tag, str):
            continue
        name = element.tag.rpartition("}")[2]
        if name == "grpSp" and depth < NESTED_MOST:
            yield from _walk(element, layouts, _inner(element, frame), depth + 1)
        elif name == "AlternateContent":
            choice = element.find(f"{MC}Choice")
            fallback = element.find(f"{MC}Fallback")
            chosen = choice if choice is not None and len(choice) else fallback
            if chosen is not None and depth < NESTED_MOST:
                yield from _walk(chosen, layouts, frame, depth + 1)
        elif name in ("sp", "pic", "graphicFrame", "cxnSp"):
            ph = next(element.iter(f"{P}ph"), None)
            x, y = _corner(element, ph, layouts)
            scale_x, offset_x, scale_y, offset_y = frame
            kind = None if ph is None else ph.get("type", "obj")
            yield Shape(element, name, kind, y * scale_y + offset_y, x * scale_x + offset_x, 0)


def _inner(group: Element, frame: Frame) -> Frame:
    """The frame of a group's children: they count in units of the group's own."""
    transform = group.find(f"{P}grpSpPr/{A}xfrm")
    if transform is None:
        return frame
    x, y = _pair(transform.find(f"{A}off"), "x", "y")
    width, height = _pair(transform.find(f"{A}ext"), "cx", "cy")
    child_x, child_y = _pair(transform.find(f"{A}chOff"), "x", "y")
    child_width, child_height = _pair(transform.find(f"{A}chExt"), "cx", "cy")
    scale_x = width / child_width if child_width else 1
    scale_y = height / child_height if child_height else 1
    outer_x, outer_offset_x, outer_y, outer_offset_y = frame
    return (
        outer_x * scale_x,
        outer_offset_x + outer_x * (x - child_x * scale_x),
        outer_y * scale_y,
        outer_offset_y + outer_y * (y - child_y * scale_y),
    )


def _corner(element: Element, ph: Element | None, layouts: list[Element]) -> tuple[int, int]:
    for path in (f"{P}spPr/{A}xfrm", f"{P}xfrm"):
        transform = element.find(path)
        if transform is not None and transform.find(f"{A}off") is not None:
            return _pair(transform.find(f"{A}off"), "x", "y")
    if ph is not None:
        for layout in layouts:
            for other in layout.iter(f"{P}sp"):
                theirs = next(other.iter(f"{P}ph"), None)
                transform = other.find(f"{P}spPr/{A}xfrm/{A}off")
                if theirs is not None and transform is not None and _same(ph, theirs):
                    return _pair(transform, "x", "y")
    return 0, 0


def _same(one: Element, other: Element) -> bool:
    if one.get("idx") is not None and one.get("idx") == other.get("idx"):
        return True
    kinds = {one.get("type", "obj"), other.get("type", "obj")}
    return len(kinds) == 1 or kinds in ({"title", "ctrTitle"}, {"obj", "body"}, {"subTitle", "body"})


def _pair(element: Element | None, first: str, second: str) -> tuple[int, int]:
    if element is None:
        return 0, 0
    return _length(element.get(first)), _length(element.get(second))


def _length(text: str | None) -> int:
    try:
        return 0 if text is None else int(float(text))
    except (ValueError, OverflowError):
        return integer(text) or 0
