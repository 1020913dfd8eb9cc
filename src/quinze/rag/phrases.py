"""Phrases: what Quinze itself says in an answer, in the language of the question.

Everything else in an answer is the documents' or the model's.
"""

from __future__ import annotations

from quinze.rag.words import Language

_PHRASES: dict[str, tuple[str, str]] = {
    "none": (
        "Nothing in “{name}” answers this. Searched {documents} document{s}.",
        "“{name}”中没有能回答这个问题的内容。已检索 {documents} 份文档。",
    ),
    "terms": (
        " Of the question's words, only these are found: {terms}.",
        "问题中的词，其中只有：{terms}。",
    ),
    "no_terms": (
        " None of the question's words is found.",
        "其中没有问题中的任何词。",
    ),
    "empty": (
        "“{name}” holds no readable documents yet, so there is nothing to answer from.",
        "“{name}”中还没有可读的文档，因此无从作答。",
    ),
    "cannot_chat": (
        "The model {model} has no chat template and cannot follow instructions, so the documents are quoted.",
        "模型 {model} 没有对话模板，不能遵循指令，因此直接引用文档原文。",
    ),
    "no_room": (
        "{model} has a context of {tokens} tokens, too small for a passage, so the documents are quoted.",
        "模型 {model} 的上下文（{tokens} 个 token）放不下任何段落，因此直接引用文档原文。",
    ),
    "declined": (
        "{model} found no answer in the passages it read; these are the sentences that come closest.",
        "模型 {model} 在所读段落中没有找到答案；以下是最接近的原文。",
    ),
    "refused": (
        "{model} found no answer in what it read ({count} passages).",
        "模型 {model} 在所读的 {count} 个段落中没有找到答案。",
    ),
    "not_supported": (
        "Nothing that {model} wrote is supported by the passages it read, so the documents are quoted.",
        "模型 {model} 所写的内容没有一句得到所读段落的支持，因此改为引用文档原文。",
    ),
    "failed": (
        "{model} could not answer ({error}), so the documents are quoted.",
        "模型 {model} 未能作答（{error}），因此直接引用文档原文。",
    ),
    "unknown_marks": (
        "Removed marks of passages that do not exist: {marks}.",
        "已删除指向不存在段落的标记：{marks}。",
    ),
    "unmarked": (
        "Sentences without a source in the passages, left without a mark: {count}.",
        "有 {count} 句话在段落中找不到出处，未加标记。",
    ),
    "cut_short": (
        "The reply reached its limit of {tokens} tokens and was cut short.",
        "回答达到 {tokens} 个 token 的上限，已被截断。",
    ),
}


def phrase(key: str, language: Language, **values: object) -> str:
    english, chinese = _PHRASES[key]
    return (chinese if language == "zh" else english).format(**values)
