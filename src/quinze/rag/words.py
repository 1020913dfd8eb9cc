"""Words: what a question asks for, in which language, and what sort of answer it wants.

Given strings; the tokens are those of the full-text index (knowledge/fulltext.py), so that what was found
by a word is also recognised by it. Knows nothing of documents or models.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from quinze.knowledge.fulltext import Analyzer
from quinze.rag.glossary import other_language

Language = Literal["en", "zh"]
Kind = Literal["number", "money", "date", "person", "reason", "definition", "code"]

_ASKING_EN = """
accord allow belong bring call cell chapter chart class column come contain describ document exact
explain file find function given go happen imag keep let list mani may mean mention method might
much must name need notebook number page permit photo pictur pleas poster present put refer row say
scan shall sheet show slide spreadsheet state tabl take tell text tri use want whether workbook
"""
_ASKING_ZH = """
什么 哪里 文中 文档 文件 提到 叫做 名称 名字 根据 关于 介绍 说明 一下 函数 方法 演示 示文 文稿 幻灯
灯片 表格 作表 扫描 描件 图片 照片 海报 网页 图表 单元 元格 截图 第几 里面 写了 写的
作用 用途 意义 含义 意思 内容 情况 具体 多久 规定
"""
ASKING = frozenset(f"{_ASKING_EN} {_ASKING_ZH}".split())
"""Stems and pairs with which people ask, or say in what sort of document: answers seldom repeat them."""
LITTLE = 0.25
NAME = 2.0
"""What names and numbers count: an answer about another thing, or another year, is no answer."""

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")

_KINDS: dict[Kind, tuple[str, str]] = {
    "number": (
        r"\bhow (?:many|much|large|big|long|old|tall|high|far|fast|often)\b|\bnumber of\b|"
        r"\b(?:price|cost|total|amount|rate|score|percent|percentage|share|size)\b",
        r"多少|几[个种次页人条项天年月位岁类张家台层]|多[大高长远重久快宽深]|[价金数总][格额量]|单价|比例|电话|号码",
    ),
    "money": (
        r"\bhow much\b(?! (?:time|water|space|memory|power))|\b(?:prices?|costs?|fees?)\b",
        r"多少钱|多少元|价格|单价|费用|金额",
    ),
    "date": (
        r"\bwhen\b|\b(?:what|which) (?:year|date|day|month|time)\b",
        r"什么时候|什么时间|何时|哪一?[年天月日]|几[号点月日年]|日期|时间",
    ),
    "person": (r"\bwho(?:se|m)?\b|\bauthors?\b", r"谁|何人|哪位|作者|姓名|负责人|联系人"),
    "reason": (r"\bwhy\b|\breasons?\b", r"为什么|为何|原因"),
    "definition": (
        r"^\W*(?:what|who) (?:is|are|was|were) |\bdefin|\bmean",
        r"什么是|是什么|是谁|定义|是指|指什么",
    ),
    "code": (
        r"\b(?:function|method|class|def|parameters?|arguments?|code|module)\b",
        r"函数|方法|类|参数|代码|模块",
    ),
}


@dataclass(frozen=True, slots=True)
class Word:
    """One word that a question is about."""

    terms: tuple[str, ...]
    """Any of these tokens in a text is the word: a Chinese character is found by either of its pairs."""
    weight: float
    """Before its rarity is considered."""
    translations: tuple[str, ...] = ()
    """Tokens of the other language with its meaning."""

    @property
    def is_name(self) -> bool:
        return self.weight >= NAME


@dataclass(frozen=True, slots=True)
class Question:
    """A question taken apart."""

    text: str
    language: Language
    words: tuple[Word, ...]
    kinds: frozenset[Kind]
    terms: frozenset[str]
    """Every term of its words, translations too."""


def read_question(text: str, analyzer: Analyzer) -> Question:
    """
    >>> [word.terms for word in read_question("How old is the bridge?", Analyzer()).words]
    [('old',), ('bridg',)]
    """
    query = analyzer.query(text)
    shared = Counter(term for run in query.runs for term in run)
    names = _names(text, analyzer)
    glossary = other_language(analyzer)
    words = tuple(
        Word(
            run, _weight(run, shared, names), tuple(other for term in run for other in glossary.get(term, ()))
        )
        for run in query.runs
    )
    kinds: set[Kind] = {
        kind for kind, (en, zh) in _KINDS.items() if re.search(en, text, re.IGNORECASE) or re.search(zh, text)
    }
    terms = frozenset(term for word in words for term in (*word.terms, *word.translations))
    return Question(text, language_of(text), words, frozenset(kinds), terms)


def language_of(text: str) -> Language:
    """Chinese if a fifth of the letters are, else English: the two languages that answers are worded in."""
    han = len(_HAN.findall(text))
    return "zh" if han and han * 5 >= sum(character.isalpha() for character in text) else "en"


def is_foreign(text: str, question: Question) -> bool:
    """Whether a text holds words, but none of the language in which a Chinese question is asked."""
    return question.language == "zh" and not _HAN.search(text) and any(c.isalpha() for c in text)


def is_han(term: str) -> bool:
    return "\u3400" <= term[0] <= "\u9fff"


def is_number(term: str) -> bool:
    return term[0].isdigit()


def _names(text: str, analyzer: Analyzer) -> set[str]:
    """The terms that name one thing: with a capital or a digit; in a Chinese question, any Latin word."""
    chinese = language_of(text) == "zh"
    found: set[str] = set()
    for match in re.finditer(r"[^\W\u3400-\u9fff][^\s\u3400-\u9fff]*", text):
        word, before = match.group(), text[: match.start()].rstrip()
        begins = not before or before[-1] in ".?!"
        plain = word.islower() or (begins and word[1:].islower())
        if chinese or not plain:
            found.update(analyzer.tokens(word))
    return found


def _weight(run: tuple[str, ...], shared: Counter[str], names: set[str]) -> float:
    if not ASKING.isdisjoint(run):
        return LITTLE
    if len(run) == 1 and len(run[0]) == 1 and not run[0].isdigit():
        return LITTLE
    if is_number(run[0]) or not names.isdisjoint(run):
        return NAME
    # A Chinese word of two characters that stands alone is one run for both of them.
    alone = is_han(run[0]) and len(run) == 1 and shared[run[0]] == 1
    return 1.9 if alone else 1.0
