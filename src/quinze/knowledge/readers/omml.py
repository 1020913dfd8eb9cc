"""Equations of Office files as one readable line: x = (-b ± √(b^2 - 4ac))/(2a).

Given an m:oMath element; knows nothing of the document around it.
"""

from __future__ import annotations

from collections.abc import Callable

from quinze.knowledge.readers.packed import Element, own_text

M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_VAL = f"{M}val"
_SIMPLE = frozenset("0123456789.,%")
_ACCENTS = {"̂": "hat", "̃": "tilde", "̄": "bar", "̅": "bar", "⃗": "vec", "̇": "dot", "̈": "ddot"}
_SKIPPED = frozenset(
    f"{M}{name}Pr"
    for name in (
        "r", "ctrl", "f", "sSup", "sSub", "sSubSup", "sPre", "rad", "nary", "func", "d", "m", "acc", "bar",
        "limLow",
        "limUpp", "groupChr", "eqArr", "box", "borderBox", "phant", "arg", "oMathPara",
    )
)  # fmt: skip


def linear(element: Element) -> str:
    """The equation in `element` as text."""
    tag = element.tag
    if not isinstance(tag, str) or tag in _SKIPPED:
        return ""
    if tag.endswith("}t"):
        return own_text(element)
    if tag.startswith(M) and (build := _BUILDERS.get(tag[len(M) :])):
        return build(element)
    return _inside(element)


def _inside(element: Element | None) -> str:
    return "" if element is None else "".join(linear(child) for child in element)


def _part(element: Element, name: str) -> str:
    return _inside(element.find(f"{M}{name}")).strip()


def _grouped(text: str) -> str:
    """Brackets where the line would be misread without them."""
    plain = len(text) == 1 or (text.isalnum() and (text.isalpha() or set(text) <= _SIMPLE))
    return text if plain or not text or (text[0] in "([{" and text[-1] in ")]}") else f"({text})"


def _property(element: Element, name: str, default: str) -> str:
    properties = next((child for child in element if str(child.tag).endswith("Pr")), None)
    found = None if properties is None else properties.find(f"{M}{name}")
    return default if found is None else str(found.get(_VAL, ""))


def _fraction(element: Element) -> str:
    top, bottom = _part(element, "num"), _part(element, "den")
    if _property(element, "type", "bar") == "noBar":
        return f"{top} over {bottom}"
    return f"{_grouped(top)}/{_grouped(bottom)}"


def _super(element: Element) -> str:
    return f"{_part(element, 'e')}^{_grouped(_part(element, 'sup'))}"


def _sub(element: Element) -> str:
    return f"{_part(element, 'e')}_{_grouped(_part(element, 'sub'))}"


def _both(element: Element) -> str:
    return f"{_part(element, 'e')}_{_grouped(_part(element, 'sub'))}^{_grouped(_part(element, 'sup'))}"


def _before(element: Element) -> str:
    return f"_{_grouped(_part(element, 'sub'))}^{_grouped(_part(element, 'sup'))}{_part(element, 'e')}"


def _root(element: Element) -> str:
    degree = _part(element, "deg")
    return f"root {degree} of ({_part(element, 'e')})" if degree else f"√({_part(element, 'e')})"


def _nary(element: Element) -> str:
    text = _property(element, "chr", "∫")
    for mark, name in (("_", "sub"), ("^", "sup")):
        if bound := _part(element, name):
            text += f"{mark}{_grouped(bound)}"
    return f"{text} {_part(element, 'e')}"


def _function(element: Element) -> str:
    argument = _part(element, "e")
    return f"{_part(element, 'fName')}{argument if argument.startswith('(') else f' {argument}'}"


def _delimited(element: Element) -> str:
    middle = _property(element, "sepChr", "|")
    inner = middle.join(_inside(each) for each in element.iterchildren(f"{M}e"))
    return f"{_property(element, 'begChr', '(')}{inner}{_property(element, 'endChr', ')')}"


def _matrix(element: Element) -> str:
    rows = (
        ", ".join(_inside(e) for e in row.iterchildren(f"{M}e")) for row in element.iterchildren(f"{M}mr")
    )
    return f"[{'; '.join(rows)}]"


def _lines(element: Element) -> str:
    return "; ".join(_inside(each).replace("&", "") for each in element.iterchildren(f"{M}e"))


def _accent(element: Element) -> str:
    mark = _property(element, "chr", "̂")
    return f"{_ACCENTS.get(mark, mark)}({_part(element, 'e')})"


def _limit(mark: str) -> Callable[[Element], str]:
    return lambda element: f"{_part(element, 'e')}{mark}{_grouped(_part(element, 'lim'))}"


_BUILDERS: dict[str, Callable[[Element], str]] = {
    "f": _fraction, "sSup": _super, "sSub": _sub, "sSubSup": _both, "sPre": _before, "rad": _root,
    "nary": _nary,
    "func": _function, "d": _delimited, "m": _matrix, "eqArr": _lines, "acc": _accent,
    "limLow": _limit("_"), "limUpp": _limit("^"),
}  # fmt: skip
