"""Source code: every function, method and class head a block of its own, with its name and its lines.

The grammars are tree-sitter's, which find their way through broken source too. Every line of the file (save
blank ones) stands in exactly one block, unchanged. What no definition holds, and files whose grammar finds
nothing, come in windows that end at blank lines.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quinze.knowledge.document import Block, BlockKind, Document, Place
from quinze.knowledge.readers import charset
from quinze.knowledge.readers.code_languages import LANGUAGES, Language
from quinze.knowledge.readers.report import Report

LONGEST_LINES = 100
LONGEST_CHARS = 5_000
"""A longer definition is divided at its statements."""

WINDOW_LINES = 50
WINDOW_CHARS = 3_000

LARGEST_PARSED = 8 << 20
"""Bytes: a larger file is generated, and is read in windows."""

DEEPEST = 24
"""Classes within classes."""

_LEADING = frozenset(
    {"attribute_item", "inner_attribute_item", "attribute_list", "decorator", "marker_annotation"}
)
_NAMES = ("name", "declarator", "type", "left")


@dataclass(frozen=True, slots=True)
class Span:
    """Lines `first` to `last` (from 0, inclusive) of a definition; `cuts`: lines where it may be divided."""

    first: int
    last: int
    symbol: str
    cuts: tuple[int, ...] = ()


def read(path: Path, report: Report) -> Document:
    text = charset.read_text(path, report)
    return Document(report.format, tuple(code_blocks(text, report.format, report.name)))


def code_blocks(text: str, language: str, name: str = "") -> list[Block]:
    """The blocks of one source text. An unknown language comes in windows."""
    lines = text.split("\n")
    if language == "typescript" and name.lower().endswith("x"):
        language = "tsx"
    blocks: list[Block] = []
    at = 0
    if language == "python" and (docstring := _module_docstring(text)):
        words, (first, last) = docstring
        blocks.extend(_windows(lines, 0, first - 1, None))
        blocks.append(Block(BlockKind.PARAGRAPH, words, Place(lines=(first + 1, last + 1))))
        at = last + 1
    for span in _spans(text, lines, LANGUAGES.get(language)):
        if span.last < at:
            continue
        blocks.extend(_windows(lines, at, span.first - 1, None))
        blocks.extend(_definition(lines, span, max(at, span.first)))
        at = span.last + 1
    blocks.extend(_windows(lines, at, len(lines) - 1, None))
    return blocks


def _module_docstring(text: str) -> tuple[str, tuple[int, int]] | None:
    """The words of a Python module's docstring, and its first and last line."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    first = body[0] if body else None
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        words = inspect.cleandoc(first.value.value).strip()
        if words and first.end_lineno is not None:
            return words, (first.lineno - 1, first.end_lineno - 1)
    return None


def _spans(text: str, lines: Sequence[str], language: Language | None) -> list[Span]:
    """All definitions, by their lines, none within another but a class's members within its class's head."""
    source = text.encode("utf-8", "replace")
    if language is None or len(source) > LARGEST_PARSED:
        return []
    import tree_sitter

    tree = tree_sitter.Parser(language.load()).parse(source)
    spans: list[Span] = []
    for span in _walk(tree.root_node, language, lines, "", 0):
        if not spans or span.first > spans[-1].last:
            spans.append(span)
        elif span.last > spans[-1].last:  # two definitions on one line
            last = spans.pop()
            spans.append(Span(last.first, span.last, last.symbol, last.cuts))
    return spans


def _walk(node: Any, language: Language, lines: Sequence[str], prefix: str, depth: int) -> Iterator[Span]:
    children = node.named_children
    for index, child in enumerate(children):
        inner = _unwrap(child, language)
        name = _name(inner, language)
        if name and inner.type in language.leaves:
            first = _leading(children, index, lines)
            yield Span(first, _end(child), _join(prefix, name), _cuts(inner, lines))
        elif name and inner.type in language.containers and depth < DEEPEST:
            yield from _class(
                child, inner, _leading(children, index, lines), language, lines, _join(prefix, name), depth
            )
        elif (child.type in language.transparent or child.type == "ERROR") and depth < DEEPEST:
            yield from _walk(child, language, lines, prefix, depth + 1)


def _class(
    outer: Any, inner: Any, first: int, language: Language, lines: Sequence[str], symbol: str, depth: int
) -> Iterator[Span]:
    """A class: its head down to the first member that is a definition, the members, what lies between."""
    at, last = first, _end(outer)
    for member in _walk(inner, language, lines, symbol, depth + 1):
        if member.first > at:
            yield Span(at, member.first - 1, symbol)
        if member.last >= at:
            yield member
            at = member.last + 1
    if at <= last:
        yield Span(at, last, symbol, _cuts(inner, lines))


def _unwrap(node: Any, language: Language) -> Any:
    """The definition within decorators, exports and template heads."""
    if node.type == "expression_statement" and node.named_child(0).type in language.containers:
        return node.named_child(0)  # TypeScript's namespaces
    while node.type in language.wrappers:
        held = node.child_by_field_name("definition") or node.child_by_field_name("declaration")
        if held is None:
            known = language.leaves | language.containers | language.wrappers
            held = next((child for child in node.named_children if child.type in known), None)
        if held is None:
            return node
        node = held
    return node


def _name(node: Any, language: Language) -> str:
    """The name of a definition; "" when it has none, or is none after all (a variable with a number)."""
    kind = node.type
    if kind not in language.leaves and kind not in language.containers:
        return ""
    if kind in ("lexical_declaration", "variable_declaration", "expression_statement"):
        return _assigned_function(node)
    if kind.endswith("field_definition") and not _is_function(node.child_by_field_name("value")):
        return ""
    if kind.endswith("_specifier") and node.child_by_field_name("body") is None:
        return ""  # a struct that is only mentioned
    return _odd_name(node, language) or _declared(node)


def _odd_name(node: Any, language: Language) -> str:
    """Names that are not written as a name."""
    match node.type:
        case "type_declaration":
            specs = [spec for spec in node.named_children if "comment" not in spec.type]
            return ", ".join(_text(spec.child_by_field_name("name")) for spec in specs)
        case "impl_item":
            return _text(node.child_by_field_name("type")).split("<")[0].replace("::", ".")
        case "namespace_definition" if node.child_by_field_name("name") is None:
            return "(anonymous)"
        case "destructor_declaration":
            return "~" + _text(node.child_by_field_name("name"))
        case "indexer_declaration":
            return "this[]"
        case "operator_declaration" | "conversion_operator_declaration":
            return "operator " + _text(
                node.child_by_field_name("operator") or node.child_by_field_name("type")
            )
        case "method_declaration" if language.module == "tree_sitter_go":
            return _join(_receiver(node), _text(node.child_by_field_name("name")))
        case _:
            return ""


def _declared(node: Any) -> str:
    """By the field "name"; in C and C++, down the declarators."""
    found = node.child_by_field_name("name")
    while found is None:
        inner = node.child_by_field_name("declarator")
        if inner is None:
            # A reference declarator keeps its own without a field name.
            inner = next(
                (c for c in node.named_children if c.type.endswith(("declarator", "identifier"))), None
            )
        if inner is None or inner.type.endswith("identifier") or inner.type.endswith("_name"):
            found = inner
            break
        node = inner
    return _text(found).replace("::", ".").strip("'\"")


def _assigned_function(node: Any) -> str:
    """`const f = () => ...`, `exports.f = function ...`: the name that the function is given."""
    for child in node.named_children:
        if child.type == "variable_declarator" and _is_function(child.child_by_field_name("value")):
            return _text(child.child_by_field_name("name"))
        if child.type == "assignment_expression" and _is_function(child.child_by_field_name("right")):
            return _text(child.child_by_field_name("left"))
    return ""


def _is_function(node: Any) -> bool:
    return node is not None and node.type in (
        "arrow_function", "function_expression", "function", "generator_function", "class",
    )  # fmt: skip


def _receiver(node: Any) -> str:
    receiver = node.child_by_field_name("receiver")
    words = _text(receiver).strip("()").split("[")[0].split()
    return words[-1].lstrip("*") if words else ""


def _text(node: Any) -> str:
    return " ".join(node.text.decode("utf-8", "replace").split())[:200] if node is not None else ""


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix and name else prefix or name


def _leading(siblings: Sequence[Any], index: int, lines: Sequence[str]) -> int:
    """The line where a definition begins, with the comments and attributes that stand directly above it."""
    first: int = siblings[index].start_point[0]
    for before in reversed(siblings[:index]):
        if "comment" not in before.type and before.type not in _LEADING:
            break
        row, column = before.start_point
        if _end(before) < first - 1 or lines[row][:column].strip():
            break
        first = min(first, row)
    return first


def _end(node: Any) -> int:
    """The last line of a node; some end at the beginning of the next one."""
    row, column = node.end_point
    return int(row - 1 if column == 0 and row > node.start_point[0] else row)


def _cuts(node: Any, lines: Sequence[str]) -> tuple[int, ...]:
    body = node.child_by_field_name("body") or node
    children = body.named_children
    return tuple(_leading(children, index, lines) for index in range(len(children)))


def _definition(lines: Sequence[str], span: Span, first: int) -> Iterator[Block]:
    """A definition as one block, or divided at its statements when it is too long for one."""
    if _fits(lines, first, span.last, LONGEST_LINES, LONGEST_CHARS):
        yield from _block(lines, first, span.last, span.symbol)
        return
    start = first
    good = first
    for cut in [*(c for c in sorted(set(span.cuts)) if first < c <= span.last), span.last + 1]:
        if good > start and not _fits(lines, start, cut - 1, WINDOW_LINES, WINDOW_CHARS):
            yield from _windows(lines, start, good - 1, span.symbol)
            start = good
        good = cut
    yield from _windows(lines, start, span.last, span.symbol)


def _fits(lines: Sequence[str], first: int, last: int, most_lines: int, most_chars: int) -> bool:
    return last - first < most_lines and sum(len(line) + 1 for line in lines[first : last + 1]) <= most_chars


def _windows(lines: Sequence[str], first: int, last: int, symbol: str | None) -> Iterator[Block]:
    """Lines in pieces that end at a blank line where there is one, else where they are full."""
    start = first
    while start <= last:
        end, chars, blank = start, len(lines[start]), -1
        while end < last and end - start + 1 < WINDOW_LINES and chars + len(lines[end + 1]) < WINDOW_CHARS:
            end += 1
            chars += len(lines[end]) + 1
            if not lines[end].strip():
                blank = end
        if end < last and blank > start + (end - start) // 3:
            end = blank
        yield from _block(lines, start, end, symbol)
        start = end + 1


def _block(lines: Sequence[str], first: int, last: int, symbol: str | None) -> Iterator[Block]:
    while first <= last and not lines[first].strip():
        first += 1
    while last >= first and not lines[last].strip():
        last -= 1
    text = "\n".join(line.rstrip() for line in lines[first : last + 1])
    place = Place(lines=(first + 1, last + 1), symbol=symbol)
    for at in range(0, len(text), LONGEST_CHARS):  # more than one turn only where a line has no end
        yield Block(BlockKind.CODE, text[at : at + LONGEST_CHARS], place)
