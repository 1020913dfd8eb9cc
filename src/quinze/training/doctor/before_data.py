"""Before the run, the data: B1 tokenizer, B2 order, B3 repeats and leaks, B4 validation, B11 ids."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np

from quinze.training.doctor import repeats
from quinze.training.doctor.floors import Ints, Steps, floors, steps_of, unigram
from quinze.training.doctor.look import Look
from quinze.training.doctor.words import finding
from quinze.training.events import Finding

ENOUGH_TOKENS = 5_000
"""Fewer tell nothing about shares."""


def ids_fit(look: Look) -> Iterator[Finding]:
    """B11: every id has its row in the embedding."""
    vocab_size, tokenizer = look.setup.model.vocab_size, look.setup.tokenizer
    if look.largest_id >= vocab_size:
        yield finding("B11.ids-outside", "stop", largest=look.largest_id, vocab_size=vocab_size)
    elif tokenizer and not tokenizer.vocab_size <= vocab_size <= tokenizer.vocab_size * 1.1 + 256:
        yield finding(
            "B11.vocabulary-differs",
            "warning" if tokenizer.vocab_size > vocab_size else "info",
            tokenizer=tokenizer.vocab_size,
            vocab_size=vocab_size,
        )


def expected_bytes_per_token(vocab_size: int) -> float:
    """What byte-level BPE reaches on text like that it was trained on.

    A straight line in log2 of the vocabulary: 1 byte at 256 tokens, 2.4 at 1,024 (measured: 2.47 on English
    Wikipedia), about 4.5 at 131,072; between them estimated. Used for slips of nearly a factor of two only.
    """
    return float(np.interp(math.log2(max(vocab_size, 2)), [8, 10, 12, 15, 17], [1.0, 2.4, 3.4, 4.2, 4.5]))


def fertility(look: Look) -> Iterator[Finding]:
    """B1: how much text a token stands for, in all and row by row."""
    mean, vocab_size = look.bytes_per_token, look.setup.model.vocab_size
    if mean is None or vocab_size < 1024 or sum(row.tokens for row in look.texts) < ENOUGH_TOKENS:
        return
    expected = expected_bytes_per_token(vocab_size)
    if mean * 1.8 < expected:
        yield finding(
            "B1.fertility", "warning", bytes_per_token=mean, expected=expected, vocab_size=vocab_size
        )
    poor = [row for row in look.texts if row.bytes / row.tokens * 1.5 < mean]
    share = len(poor) / len(look.texts)
    if share >= 0.02:
        worst = max(row.bytes / row.tokens for row in poor)
        yield finding("B1.foreign-rows", "info", share=share, bytes_per_token=worst, mean=mean)


def unknown_tokens(look: Look) -> Iterator[Finding]:
    """B1: tokens that the tokenizer could not spell."""
    unknown = look.setup.tokenizer.unk_id if look.setup.tokenizer else None
    tokens = sum(batch.ids.size for batch in look.train)
    if unknown is None or not tokens:
        return
    share = sum(int((batch.ids == unknown).sum()) for batch in look.train) / tokens
    if share > look.settings.unknown_share:
        yield finding("B1.unknown", "warning", share=share)


def unused_vocabulary(look: Look) -> Iterator[Finding]:
    """B1: rows of the embedding that nobody touches."""
    tokens, vocab_size = sum(batch.ids.size for batch in look.train), look.setup.model.vocab_size
    if tokens < 50 * vocab_size or look.largest_id >= vocab_size:
        return
    used = np.zeros(vocab_size, np.bool_)
    for batch in look.train:
        used[batch.ids] = True
    if (unused := 1 - float(used.mean())) > 0.25 and vocab_size > 512:
        yield finding("B1.unused-vocabulary", "info", unused=unused, vocab_size=vocab_size, tokens=tokens)


def order(look: Look) -> Iterator[Finding]:
    """B2: the floors, and whether the text has any order."""
    found = look.floors
    if found is None:
        return
    yield finding(
        "B2.floors",
        "info",
        uniform=found.uniform,
        unigram=found.unigram,
        bigram=found.bigram,
        trigram=found.trigram,
        compressor=found.compressor_bits_per_byte,
    )
    # With few tokens for so many pairs, a table knows nothing even of the best text.
    if found.tokens_counted < 20 * min(found.vocab_size, 4096):
        return
    gain = found.unigram - min(found.bigram, found.trigram)
    if gain < 0.03 * found.unigram:
        yield finding("B2.no-order", "warning", gain=gain, unigram=found.unigram, share=gain / found.unigram)
        return
    yield from _word_order(look)


COMMON_WORDS = 500
ENOUGH_WORDS = 8_000


def _word_order(look: Look) -> Iterator[Finding]:
    """The same of words (of Chinese: characters): the most common ones by name, the others as one."""
    words = [word for row in look.texts for word in re.findall(r"[一-鿿]|[^\W一-鿿]+", row.text.lower())]
    if len(words) < ENOUGH_WORDS:
        return
    names, counts = np.unique(np.array(words), return_counts=True)
    common = {str(name): i + 1 for i, name in enumerate(names[np.argsort(-counts)][:COMMON_WORDS])}
    ids = np.array([common.get(word, 0) for word in words])
    cut = len(ids) * 4 // 5
    train, scored = (Steps(part[:-2], part[1:-1], part[2:]) for part in (ids[:cut], ids[cut:]))
    found = floors(train, scored, COMMON_WORDS + 1)
    gain = found.unigram - min(found.bigram, found.trigram)
    if gain < 0.015 * found.unigram:
        yield finding(
            "B2.no-word-order", "warning", gain=gain, unigram=found.unigram, share=gain / found.unigram
        )


def duplicates(look: Look) -> Iterator[Finding]:
    """B3: training text that occurs twice, and validation text that stands in training."""
    find = repeats.text_passages if look.setup.method == "pretrain" else repeats.learned_passages
    length = repeats.passage_length(look.bytes_per_token, look.setup.model.vocab_size)
    known, held = find(look.train, length), find(look.validation, length)
    # Of passages that occur twice, a sample of a share s of the text holds both with probability s.
    share = repeats.share_repeated(known)
    estimate = min(1.0, share / look.share_read)
    pairs = look.setup.method == "dpo"  # chosen and rejected answers begin alike
    if share * len(known) >= 20 and estimate > look.settings.duplicate_share and not pairs:
        yield finding("B3.duplicates", "warning", share=estimate, length=length)
    share = repeats.share_known(held, known)
    estimate = min(1.0, share / look.share_read)
    if share * len(held) >= 5 and estimate > look.settings.leak_share:
        yield finding("B3.leak", "warning", share=estimate, length=length)


def visiting_order(look: Look) -> Iterator[Finding]:
    """B3: each step its own rows, not as they lie in the file, and each epoch in another order."""
    batches, setup = look.train, look.setup
    rows = [batch.rows for batch in batches]
    several = setup.train.rows >= 2 * len(rows[0]) and len(rows) > 1
    if several and np.array_equal(rows[0], rows[1]) and np.array_equal(batches[0].ids, batches[1].ids):
        yield finding("B3.same-batch", "stop", first=1, second=2)
        return
    together = np.concatenate(rows[:64])
    if len(together) >= 32 and bool((np.diff(together) == 1).all()):
        yield finding("B3.not-shuffled", "warning", rows=len(together))
    per_step = max(len(rows[0]), setup.plan.tokens_per_step // max(1, batches[0].ids.shape[1]))
    epoch = setup.train.rows // per_step
    if setup.plan.steps is None or setup.plan.steps <= epoch + 4 or epoch < 4:
        return
    again = [setup.batches(step, 0) for step in range(epoch, epoch + 4)]
    later = np.concatenate([batch.rows for batch in again if batch.epoch > batches[0].epoch] or [rows[0][:0]])
    if _is_part(later, np.concatenate([*rows[:4], *rows[-2:]])) or _is_part(later, np.concatenate(rows[:6])):
        yield finding("B3.same-order", "warning", epoch=again[-1].epoch + 1, before=again[-1].epoch)


def _is_part(rows: Ints, of: Ints) -> bool:
    """Whether the rows stand in `of` one after the other."""
    if len(rows) < 4:
        return False
    starts = np.flatnonzero(of == rows[0])
    length = min(len(rows), 16)
    return any(np.array_equal(of[at : at + length], rows[:length]) for at in starts)


def validation_is_alike(look: Look) -> Iterator[Finding]:
    """B4: the validation text is of the same kind as the training text."""
    if not look.validation or look.floors is None:
        return
    train, scored = steps_of(look.train), steps_of(look.validation)
    size = look.setup.model.vocab_size
    if len(scored) < ENOUGH_TOKENS or len(train) < 20 * min(size, 4096):
        return
    own = -np.log(unigram(scored, scored, size)).mean()
    excess = float(look.floors.unigram - own)
    if excess > 1.0:
        yield finding("B4.validation-differs", "warning", excess=excess)
