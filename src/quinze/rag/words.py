"""Words: what a question asks for, in which language, and what sort of answer it wants.

Given strings; the tokens are those of the full-text index (knowledge/fulltext.py), so that what was found
by a word is also recognised by it. Knows nothing of documents or models.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from quinze.knowledge.fulltext import Analyzer
from quinze.knowledge.glossary import Glossary, implied_terms, read_glossary
from quinze.knowledge.numerals import months, numbers_in_digits, numbers_in_han

Language = Literal["en", "zh"]
Kind = Literal["number", "money", "date", "person", "reason", "definition", "code"]

_ASKING_EN = """
accord allow belong bring call cell chapter chart class column come contain describ document exact
explain file find function given go happen imag keep let list mani may mean mention method might
much must name need notebook number page permit photo pictur pleas poster present put refer row say
scan shall sheet show shown slide spreadsheet state tabl take tell text tri use want whether workbook
"""
_ASKING_ZH = """
什么 哪里 文中 文档 文件 提到 叫做 名称 名字 根据 关于 介绍 说明 一下 函数 方法 演示 示文 文稿 幻灯
灯片 表格 作表 扫描 描件 图片 照片 海报 网页 图表 单元 元格 截图 第几 里面 写了 写的
数量 作用 用途 意义 含义 意思 内容 情况 具体 多久 规定
已经 突然 一般 通常 需要 必须 应该 应当 可以 能够 要求 大概 大约 目前 现在 到底 究竟 我们 你们 他们 自己
那张 这张 那个 这个 那份 这份 那本 这本 一个 一张 一份 一下 讲了 讲的 写着 显示 属于 来自 分别 知道 看到
"""
ASKING = frozenset(f"{_ASKING_EN} {_ASKING_ZH}".split())
"""Stems and pairs with which people ask, or say in what sort of document: answers seldom repeat them."""
LITTLE = 0.25
NAME = 2.0
"""What names and numbers count: an answer about another thing, or another year, is no answer. A name of n
words counts as the root of n names."""
IMPLIED = 0.8
"""What counts, where it is found, that a question asks for without saying it: the price, in "how much is"."""

_ASKING_HAN = re.compile(
    "幻灯片|单元格|演示文稿|扫描件|工作表|"
    + "|".join(word for word in _ASKING_ZH.split() if word not in ("规定", "文件", "参数"))
    + "|(?<![重主需必摘概纪])要(?![求素点闻件害])"
)
_ABBREVIATED = re.compile(r"\b[A-Za-z]{1,3}\.$")
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
    synonyms: tuple[str, ...] = ()
    """Tokens of its own language that mean nearly the same."""
    phrases: tuple[frozenset[str], ...] = ()
    """Sets of tokens; one that is wholly there is the word: 两千五百 for 2500."""
    sign: re.Pattern[str] | None = None
    """What an answer to it looks like."""
    alike: frozenset[str] | None = None
    """The tokens that begin alike, of all those that there are to compare with; None: not yet compared."""
    is_name: bool = False
    implied: bool = False
    """Not said: counts where it is found, and is not missed where it isn't."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question taken apart."""

    text: str
    language: Language
    words: tuple[Word, ...]
    kinds: frozenset[Kind]
    terms: frozenset[str]
    """Every term of its words, translations and synonyms too."""


def read_question(text: str, analyzer: Analyzer) -> Question:
    """
    >>> [word.terms for word in read_question("How old is the bridge?", Analyzer()).words]
    [('old',), ('bridg',)]
    """
    query = analyzer.query(_without_asking(text) if language_of(text) == "zh" else text)
    shared = Counter(term for run in query.runs for term in run)
    names = _names(text, analyzer)
    glossary = read_glossary(analyzer)
    written = _written_otherwise(text, analyzer)
    words = [_word(run, shared, names, glossary, written) for run in query.runs]
    words += [
        Word(terms[:1], IMPLIED, translations=terms[1:], implied=True, sign=_sign(terms, glossary))
        for terms in implied_terms(text, analyzer)
    ]
    kinds: set[Kind] = {
        kind for kind, (en, zh) in _KINDS.items() if re.search(en, text, re.IGNORECASE) or re.search(zh, text)
    }
    terms = frozenset(term for word in words for term in (*word.terms, *word.translations, *word.synonyms))
    return Question(text, language_of(text), tuple(words), frozenset(kinds), terms)


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


def _without_asking(text: str) -> str:
    """A Chinese question without the words with which people ask, so that none is taken together with its
    neighbors for a word; as it was, if nothing else is left.

    >>> _without_asking("这张表格要带什么材料")
    '这张     带  材料'
    """
    rest = _ASKING_HAN.sub(lambda found: " " * len(found[0]), text)
    return rest if re.search(r"\w\w", rest) else text


def _word(
    run: tuple[str, ...],
    shared: Counter[str],
    names: Mapping[str, float],
    glossary: Glossary,
    written: Mapping[str, tuple[frozenset[str], ...]],
) -> Word:
    weight = _weight(run, shared, names)
    # "Email" in a Chinese question names no thing, but what is asked about one.
    attribute = any(term in glossary.translations or term in glossary.synonyms for term in run)
    return Word(
        run,
        weight,
        translations=_each(glossary.translations, run),
        synonyms=_each(glossary.synonyms, run),
        phrases=tuple(phrase for term in run for phrase in written.get(term, ())),
        sign=_sign(run, glossary),
        is_name=weight > LITTLE
        and (is_number(run[0]) or (not attribute and not names.keys().isdisjoint(run))),
    )


def _each(table: Mapping[str, tuple[str, ...]], run: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(other for term in run for other in table.get(term, ())))


def _sign(terms: tuple[str, ...], glossary: Glossary) -> re.Pattern[str] | None:
    return next((glossary.signs[term] for term in terms if term in glossary.signs), None)


def _written_otherwise(text: str, analyzer: Analyzer) -> dict[str, tuple[frozenset[str], ...]]:
    """Term -> the sets of tokens that are the same number or month."""
    found: dict[str, tuple[frozenset[str], ...]] = {}

    def add(term: str, phrase: frozenset[str]) -> None:
        found[term] = (*found.get(term, ()), phrase)

    for digits, forms in numbers_in_digits(text):
        for form in forms:
            pairs = frozenset(token for token in analyzer.tokens(form) if len(token) > 1)
            if pairs:
                add(digits, pairs)
    for han, digits in numbers_in_han(text):
        for token in analyzer.tokens(han):
            add(token, frozenset([digits]))
    for number, name in months(text):
        stem = analyzer.tokens(name)[0]
        add(number, frozenset([stem]))
        add(number, frozenset([name[:3]]))
        add(stem, frozenset([number]))
    return found


def _names(text: str, analyzer: Analyzer) -> dict[str, float]:
    """The terms that name one thing: with a capital or a digit; in a Chinese question, any Latin word. Each
    with what it weighs."""
    chinese = language_of(text) == "zh"
    found: dict[str, float] = {}
    last_end = -1
    together: list[str] = []

    def close() -> None:
        for word in together:
            for term in analyzer.tokens(word):
                found[term] = max(found.get(term, 0.0), NAME / math.sqrt(len(together)))
        together.clear()

    for match in re.finditer(r"[^\W\u3400-\u9fff][^\s\u3400-\u9fff]*", text):
        word, before = match.group(), text[: match.start()].rstrip()
        begins = not before or (before[-1] in ".?!" and not _ABBREVIATED.search(before))
        plain = word.islower() or (begins and word[1:].islower())
        if chinese or not plain:
            if len(before) != last_end or any(character.isdigit() for character in word):
                close()
            together.append(word)
            last_end = match.end()
    close()
    return found


def _weight(run: tuple[str, ...], shared: Counter[str], names: Mapping[str, float]) -> float:
    if not ASKING.isdisjoint(run):
        return LITTLE
    if len(run) == 1 and len(run[0]) == 1 and not run[0].isdigit():
        return LITTLE
    if is_number(run[0]):
        return NAME
    if not names.keys().isdisjoint(run):
        return max(names[term] for term in run if term in names)
    # A Chinese word of two characters that stands alone is one run for both of them.
    alone = is_han(run[0]) and len(run) == 1 and shared[run[0]] == 1
    return 1.9 if alone else 1.0
