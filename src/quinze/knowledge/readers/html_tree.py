"""A web page as a tree that can be walked without fear: no depth overflows, what nobody sees is passed over.

Knows what is chrome (navigation, advertisements, footers) and what is hidden; knows nothing of blocks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

from quinze.knowledge.readers import charset
from quinze.knowledge.readers.detection import damaged
from quinze.knowledge.readers.report import Report

NEVER = frozenset(
    (
        "script", "style", "template", "iframe", "object", "embed", "canvas", "audio", "video", "map", "head",
        "rp",
        "rt", "select", "datalist", "button", "input", "textarea", "noframes", "annotation", "annotation-xml",
        "svg",
        "-comment", "-doctype", "!doctype",
    )
)  # fmt: skip
"""Elements that hold no text to be read."""
CHROME = frozenset(("nav", "aside", "footer", "menu", "dialog"))
"""Elements that frame a page's content."""
BLOCKS = frozenset(
    (
        "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "dialog",
        "div",
        "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6",
        "header", "hgroup", "hr", "html", "legend", "li", "main", "menu", "nav", "noscript", "ol", "p", "pre",
        "search", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul",
    )
)  # fmt: skip
_CHROME_ROLES = frozenset(
    ("navigation", "complementary", "contentinfo", "search", "menu", "menubar", "dialog")
)
_CHROME_NAMES = re.compile(
    r"(?:^|[\s_-])(?:ads?|advert\w*|adsense|sponsored|cookie[\w-]*|breadcrumbs?|navbar|navbox|navigation|sidebar|"
    r"site-?(?:header|footer|nav)|skip-link|social-?(?:share|links|media)|share-?(?:buttons|links|bar)|newsletter|"
    r"mw-editsection|mw-jump-link|noprint|printfooter|catlinks|toc)(?:$|[\s_-])",
    re.IGNORECASE,
)
_HIDDEN_STYLE = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|font-size\s*:\s*0(?:px|pt|em|%)?\s*(?:;|!|$)|"
    r"opacity\s*:\s*0(?:\.0*)?\s*(?:;|!|$)",
    re.IGNORECASE,
)
_META = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE)
_XML = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]{1,40})""")
DEEPEST = 10_000
_NESTING = re.compile(
    r"</?(?:div|span|section|article|blockquote|table|ul|ol|dl|b|i|em|font|center)\b", re.IGNORECASE
)
_SPACES = re.compile(r"[ \t\n\r\f\u00a0\u3000]+")


def parse(data: bytes, report: Report) -> LexborHTMLParser:
    head = data[:4096]
    declared = _META.search(head) or _XML.search(head)
    text = charset.decode(data, declared[1].decode("ascii", "replace") if declared else None)
    if _depth(text) > DEEPEST:
        raise damaged(report.name, "HTML", f"its elements are nested more than {DEEPEST:,} deep")
    # A processing instruction ends at the first ">" in HTML, and swallows the page where that one is missing.
    return LexborHTMLParser(re.sub(r"^\ufeff?\s*<\?xml[^>]*\?>", "", text, count=1))


def _depth(text: str) -> int:
    """How deep the elements go that never end by themselves. The parser takes quadratic time for it."""
    depth = most = 0
    for match in _NESTING.finditer(text):
        depth += -1 if match[0][1] == "/" else 1
        depth = max(depth, 0)
        most = max(most, depth)
    return most


def walk(root: LexborNode, passes: Callable[[LexborNode], bool]) -> Iterator[tuple[LexborNode, bool]]:
    """(node, entering) in the order of the page, without the elements that `passes` says to pass over.

    Of an element both its beginning (entering) and its end are told, of a text its beginning only.
    """
    node: LexborNode | None = root
    while node is not None:
        is_text = node.tag == "-text"
        if is_text or not passes(node):
            yield node, True
            child = node.child
            if child is not None:
                node = child
                continue
            if not is_text:
                yield node, False
        while node.mem_id != root.mem_id and node.next is None:
            above = node.parent
            if above is None:
                return
            node = above
            yield node, False
        node = None if node.mem_id == root.mem_id else node.next


def is_hidden(node: LexborNode) -> bool:
    """Whether a browser would not show it. Style sheets are not read."""
    attributes = node.attributes
    if not attributes:
        return False
    if "hidden" in attributes and (attributes["hidden"] or "").lower() != "until-found":
        return True
    style = attributes.get("style")
    return bool(style) and _HIDDEN_STYLE.search(style or "") is not None


def is_chrome(node: LexborNode) -> bool:
    """Whether it frames the content and is not the content."""
    tag = node.tag
    if tag in CHROME:
        return True
    if tag in ("html", "body", "main", "article"):
        return False
    attributes = node.attributes
    if not attributes:
        return False
    if (attributes.get("role") or "").lower() in _CHROME_ROLES:
        return True
    names = f"{attributes.get('class') or ''} {attributes.get('id') or ''}"
    if tag == "sup":
        # Wikipedia's "[1]" would pass for a citation of ours.
        return "reference" in names
    return _CHROME_NAMES.search(names) is not None


def inline_text(root: LexborNode, *, chrome: bool = False) -> str:
    """All the text within an element on one line; blocks and line breaks within it become spaces."""

    def passes(node: LexborNode) -> bool:
        return node.tag in NEVER or is_hidden(node) or (not chrome and is_chrome(node))

    pieces: list[str] = []
    for node, entering in walk(root, passes):
        tag = node.tag or ""
        if tag == "-text":
            pieces.append(node.text_content or "")
        elif tag in BLOCKS or tag == "br":
            pieces.append(" ")
        elif tag == "img" and entering and len(alternative := alternative_text(node)) < 3:
            pieces.append(alternative)
    return spaced("".join(pieces))


def alternative_text(node: LexborNode) -> str:
    return spaced(node.attributes.get("alt") or "")


def spaced(text: str) -> str:
    return _SPACES.sub(" ", text).strip()
