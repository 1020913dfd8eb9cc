"""The corpora that the starter embedder learns from, and the pairs of texts that they give for free.

A pair is two texts that belong together: a title and its lead, a question made of the title and the lead,
a sentence and the paragraph it was taken from, two paragraphs of one article, a heading and its section, a
classical sentence and its modern form, the same paragraph of a page in English and in Chinese. Every
twentieth article of the encyclopaedias, of the news and of the pages is held out.
"""

from __future__ import annotations

import itertools
import json
import lzma
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HELD_OUT = 20, 7
"""Of so many articles, the one at this place is kept for measuring."""
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"“])|(?<=[。！？；])")
HEADING = re.compile(r"^[^.。！？]{1,40}\.$")
ENGLISH_NAME = re.compile(r"[（(]([A-Z][A-Za-z][A-Za-z .'\-]{2,48})[）),，;；]")
QUESTIONS = {
    "en": ["what is {}?", "who is {}?", "{} meaning", "explain {}", "tell me about {}", "how does {} work?",
           "what was {}?", "when did {} happen?"],
    "zh": ["什么是{}？", "{}是什么？", "{}是谁？", "介绍一下{}", "{}的定义", "请解释{}", "{}是指什么"],
}  # fmt: skip
Article = dict[str, str]


class Pair(NamedTuple):
    group: str
    """Pairs of one group make a batch: telling Chinese laws from English news would be too easy."""
    a: str
    b: str


def read(folder: Path, name: str) -> Iterator[Article]:
    with lzma.open(folder / f"{name}.jsonl.xz", "rt", encoding="utf-8", newline="\n") as lines:
        for line in lines:
            yield json.loads(line)


def is_held_out(number: int) -> bool:
    every, place = HELD_OUT
    return number % every == place


def held_out(folder: Path, name: str) -> list[Article]:
    return [article for number, article in enumerate(read(folder, name)) if is_held_out(number)]


def pairs(folder: Path, draw: random.Random) -> Iterator[Pair]:
    english: dict[str, Article] = {}
    for number, article in enumerate(read(folder, "en_wiki_leads")):
        if not is_held_out(number):
            english[article["title"].lower()] = article
            yield from of_article("en", article, draw, 6)
    for number, article in enumerate(read(folder, "zh_wiki")):
        if not is_held_out(number):
            yield from across(article, english)
            yield from of_article("zh", article, draw, 5)
    for number, article in enumerate(read(folder, "en_wikinews")):
        if not is_held_out(number):
            yield from of_article("news", article, draw, 3)
    yield from _of_other_texts(folder, draw)


def _of_other_texts(folder: Path, draw: random.Random) -> Iterator[Pair]:
    for pair in read(folder, "zh_classical_modern"):
        if draw.random() < 0.35 and len(pair["modern"]) > 8:
            yield Pair("classical", pair["classical"], pair["modern"])
    for law in read(folder, "zh_laws"):
        yield from of_law(law, draw)
    for number, page in enumerate(read(folder, "parallel_docs_en_zh")):
        if not is_held_out(number):
            yield from of_page(page)
    for book in read(folder, "en_children_books"):
        yield from of_book(book, draw)


def sentences(paragraph: str) -> list[str]:
    return [part for part in SENTENCE.split(paragraph) if part and part.strip()]


def sections(text: str, shortest: int) -> list[tuple[str, str]]:
    """(heading, paragraph) of every paragraph worth learning from."""
    heading, found = "", []
    for line in filter(None, map(str.strip, text.split("\n"))):
        if HEADING.match(line):
            heading = line[:-1]
        elif len(line) > shortest:
            found.append((heading, line))
    return found


def of_article(group: str, article: Article, draw: random.Random, inner: int) -> Iterator[Pair]:
    chinese, title = group == "zh", article["title"]
    body = sections(article["text"], 25 if chinese else 60)
    if not body:
        return
    space, lead = "" if chinese else " ", body[0][1]
    question = draw.choice(QUESTIONS["zh" if chinese else "en"]).format(title)
    yield Pair(group, title, lead[:600])
    yield Pair(group, question, lead[:600])
    parts = sentences(lead)
    if len(parts) > 2:
        yield Pair(group, parts[0], space.join(parts[1:]))
    for _ in range(inner):
        yield from _within(group, title, body, draw, space)


def _within(
    group: str, title: str, body: list[tuple[str, str]], draw: random.Random, space: str
) -> Iterator[Pair]:
    """A sentence and the rest of its paragraph, a heading and its section, or two paragraphs."""
    heading, paragraph = draw.choice(body)
    parts, kind = sentences(paragraph), draw.random()
    if len(parts) >= 3 and kind < 0.5:
        at = draw.randrange(len(parts))
        yield Pair(group, parts[at], space.join(parts[:at] + parts[at + 1 :])[:700])
    elif heading and kind < 0.75:
        yield Pair(group, f"{title} {heading}", paragraph[:700])
    elif len(body) > 1:
        other = draw.choice(body)[1]
        if other is not paragraph:
            yield Pair(group, paragraph[:400], other[:700])
    elif len(parts) == 2:
        yield Pair(group, parts[0], parts[1])


def across(article: Article, english: dict[str, Article]) -> Iterator[Pair]:
    """A Chinese article that tells its subject's English name: both names, and the English lead if known."""
    found = ENGLISH_NAME.search(article["text"][:200])
    if not found:
        return
    name = found[1].strip()
    yield Pair("name", article["title"], name)
    other = english.get(name.lower())
    if other:
        lead, other_lead = article["text"].split("\n")[0][:500], other["text"].split("\n")[0][:600]
        for _ in range(3):
            yield Pair("across", lead, other_lead)
            yield Pair("across", article["title"], other_lead)
            yield Pair("across", lead, other["title"])


def of_law(law: Article, draw: random.Random) -> Iterator[Pair]:
    title, chapter = re.sub(r"\(.*?\)$", "", law["title"]), ""
    for line in map(str.strip, law["text"].split("\n")):
        if line.startswith("##"):
            chapter = line.strip("# ")
        elif len(line) > 30 and draw.random() < 0.5:
            line = re.sub(r"^第[一二三四五六七八九十百零]+条\s*", "", line)
            parts = sentences(line)
            if len(parts) > 1 and draw.random() < 0.5:
                yield Pair("law", parts[0], "".join(parts[1:]))
            else:
                yield Pair("law", f"{title} {chapter}", line[:500])


def of_page(page: Article) -> Iterator[Pair]:
    """The blocks of a page in both languages, where it has as many in each."""
    english, chinese = blocks(page["en"]), blocks(page["zh"])
    if len(english) != len(chinese):
        return
    for a, b in zip(chinese, english, strict=True):
        if len(b) > 15 or len(a) > 6:
            for _ in range(3 if len(b) < 200 else 2):
                yield Pair("pages", a, b)


def blocks(markdown: str) -> list[str]:
    """Paragraphs without front matter, code, addresses of links and tags."""
    text = re.sub(r"^---\n.*?\n---\n", "", markdown, flags=re.DOTALL)
    found = []
    for block in map(str.strip, re.split(r"\n\s*\n", text)):
        if block and not block.startswith(("> 本文档", "```")):
            bare = re.sub(r"</?[A-Za-z][^>]*>", " ", re.sub(r"\]\([^)]*\)", "]", block)).strip()
            found += [bare] if bare else []
    return found


def of_book(book: Article, draw: random.Random) -> Iterator[Pair]:
    paragraphs = [part.replace("\n", " ") for part in re.split(r"\n\s*\n", book["text"]) if len(part) > 120]
    for one, following in itertools.pairwise(paragraphs):
        if draw.random() < 0.25:
            yield Pair("books", one[:500], following[:500])
