"""What is mended, what is left out, and what stays as it was."""

from __future__ import annotations

import random

import numpy as np
import pytest

from quinze.training.data.cleaning import clean, unwrapped
from quinze.training.data.duplicates import near_duplicates, signature, similarity
from quinze.training.data.grams import grams, words
from quinze.training.data.lines import LineCounts
from quinze.training.data.text_tasks import content_hash

PROSE = "The quick brown fox jumps over the lazy dog. " * 3
FRENCH = "Un été à la plage, déjà vu. " * 3
PYTHON = "def f(x):\n    if x:\n        return 1\n\n\treturn 2\n"


@pytest.mark.parametrize(
    ("text", "wanted", "reason"),
    [
        ("cafe\u0301", "café", "Unicode composed"),
        ("a\x00b\ufeffc\u200bd\u00ade", "abcde", "control characters removed"),
        ("a\r\nb\rc  \nd", "a\nb\nc\nd", None),
        ("a\n\n\n\n\n\nb", "a\n\n\nb", None),
        (FRENCH.encode().decode("cp1252"), FRENCH, "mojibake mended"),
        ("锟斤拷锟斤拷" * 10, None, "mojibake"),
        ("\ufffd\ufffd\ufffd text", None, "undecodable"),
        ("   \n", None, "empty"),
        ("buy now! " * 500, None, "repetitive"),
        (PYTHON, PYTHON, None),
        (PROSE, PROSE, None),
        ("中文标点，不变。「引号」", "中文标点，不变。「引号」", None),
        ("family 👨‍👩‍👧 emoji", "family 👨‍👩‍👧 emoji", None),
    ],
)
def test_each_change_has_its_name(text, wanted, reason):
    done = clean(text)
    assert done.text == wanted
    assert done.reasons == ([reason] if reason else [])


def test_lines_broken_at_one_width_are_joined_and_others_are_not():
    rng = random.Random(1)
    vocabulary = ["river", "stone", "under", "a", "of", "the", "evening", "walked", "slowly", "and"]
    paragraphs = [" ".join(rng.choice(vocabulary) for _ in range(120)) for _ in range(5)]
    import textwrap

    wrapped = "\n\n".join(textwrap.fill(paragraph, 70) for paragraph in paragraphs)
    assert unwrapped(wrapped) == "\n\n".join(paragraphs)
    poem = "\n".join(" ".join(rng.choice(vocabulary) for _ in range(rng.randint(3, 9))) for _ in range(60))
    assert unwrapped(poem) is None
    assert unwrapped(PYTHON * 20) is None


def test_words_are_runs_of_letters_and_single_chinese_characters():
    hashes, weights = words("Hello, hello WORLD 北京 2024年")
    assert weights.tolist() == [2, 2, 2, 1, 1, 2, 1]
    assert hashes[0] == hashes[1] != hashes[2]
    assert len(grams("one two three four", 3)) == 2
    assert len(grams("一二三四五六七", 3)) == 2
    assert grams("a b c", 3)[0] == grams("x a b c", 3)[1]


def jaccard(a: str, b: str) -> float:
    one, two = set(grams(a, 5).tolist()), set(grams(b, 5).tolist())
    return len(one & two) / len(one | two)


def test_signatures_estimate_the_jaccard_similarity():
    """Against the sets themselves; the estimate's standard error is at most sqrt(1/4 / 112) = 0.047."""
    rng = random.Random(7)
    vocabulary = [f"w{i}" for i in range(2000)]
    errors = []
    for length in (20, 60, 400, 2000):
        for changes in (0, 1, 3, 10):
            base = [rng.choice(vocabulary) for _ in range(length)]
            other = list(base)
            for _ in range(changes * length // 100 + (changes > 0)):
                other[rng.randrange(length)] = rng.choice(vocabulary)
            a, b = " ".join(base), " ".join(other)
            found = similarity(signature(a), signature(b)[None])[0]
            errors.append(found - jaccard(a, b))
    assert np.abs(errors).max() < 4 * 0.047
    assert abs(np.mean(errors)) < 0.047


def test_near_duplicates_are_found_and_the_first_one_stays():
    rng = random.Random(3)
    vocabulary = [f"w{i}" for i in range(500)]
    documents = [" ".join(rng.choice(vocabulary) for _ in range(200)) for _ in range(300)]
    for i in (10, 20, 30):
        words_ = documents[i].split()
        words_[50] = "changed"
        documents.append(" ".join(words_))
    documents.append("")
    documents.append("")
    repeats = near_duplicates(np.stack([signature(text) for text in documents]), 0.7)
    assert np.flatnonzero(repeats >= 0).tolist() == [300, 301, 302]
    assert repeats[300:303].tolist() == [10, 20, 30]


def test_lines_that_many_documents_have_are_boilerplate():
    counts = LineCounts()
    rng = random.Random(5)
    menu = content_hash("Home | About | Imprint | Contact | Sitemap")
    for i in range(1000):
        own = [content_hash(f"line {i} {rng.random()}") for _ in range(20)]
        counts.add(np.array([menu, *own] if i % 2 else own, np.uint64))
    assert counts.boilerplate(1000).tolist() == [menu]
    assert counts.boilerplate(1_000_000).tolist() == []
