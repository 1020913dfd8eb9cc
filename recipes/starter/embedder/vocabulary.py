"""The pieces of words that have vectors: a Unigram vocabulary of both languages, learned from folded text.

The beginning of a word in a spaced script is marked by "▁"; Chinese has no such marks, so that a word is the
same piece wherever it stands. Punctuation is dropped.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from corpora import read
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from quinze.embeddings.folding import fold

SIZE = 40_000
SHARES = {
    "en_wiki_leads": 0.15, "zh_wiki": 0.105, "en_wikinews": 0.09, "en_children_books": 0.5,
    "zh_classical_modern": 0.06, "zh_laws": 0.15, "parallel_docs_en_zh": 0.3,
}  # fmt: skip
"""Of each corpus's documents; of a book its first 100,000 characters."""
JOINED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}"
SPACED = rf"[\p{{L}}\p{{N}}&&[^{JOINED}]]"


def texts(folder: Path, draw: random.Random) -> Iterator[str]:
    for name, share in SHARES.items():
        for document in read(folder, name):
            if draw.random() < share:
                values = [document["text"][:100_000]] if name.endswith("books") else document.values()
                for value in values:
                    yield from (fold(line) for line in value.split("\n") if line.strip())


def learn(folder: Path) -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Replace(Regex(f"(?<!{SPACED})(?={SPACED})"), "▁")
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"[^\p{L}\p{N}▁]+"), "removed"),
        pre_tokenizers.Split(Regex(f"[{JOINED}]+"), "isolated"),
        pre_tokenizers.Split("▁", "merged_with_next"),
    ])  # fmt: skip
    trainer = trainers.UnigramTrainer(
        vocab_size=SIZE, special_tokens=["<unk>"], unk_token="<unk>", max_piece_length=12, show_progress=True
    )
    made.train_from_iterator(texts(folder, random.Random(0)), trainer)
    return made
