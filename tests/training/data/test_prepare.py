"""Texts to rows: whole or absent, equal for equal sources, split by content, counted to the byte."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from quinze.errors import BusyError, ConflictError, FileFormatError, InvalidRequestError
from quinze.tokenizer.tokenizer import load_tokenizer
from quinze.tokenizer.training import train_characters
from quinze.training.batch import IGNORE
from quinze.training.data.dataset import TokenData
from quinze.training.data.manifest import PrepareProgress, PrepareSettings
from quinze.training.data.prepare import prepare
from quinze.training.data.preview import preview
from quinze.training.data.sources import Source
from quinze.training.data.workplace import Workplace

SETTINGS = PrepareSettings(sequence_length=32, val_fraction=0.1, workers=1)
WORDS = [f"{a}{b}" for a in ("ka", "lo", "mi", "ne", "su") for b in ("ra", "to", "ve", "xi", "zu", "ban")]


def story(seed: int, words: int = 60) -> str:
    chosen = random.Random(seed)
    return " ".join(chosen.choice(WORDS) for _ in range(words)) + ".\n"


def corpus(path: Path, count: int = 300) -> Path:
    path.write_text("".join(json.dumps({"text": story(i)}) + "\n" for i in range(count)), "utf-8")
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_tinyshakespeare_is_split_as_nanogpt_splits_it(shared: Callable[[str], Path], tmp_path: Path):
    path = shared("data/corpora/tinyshakespeare.txt")
    text = path.read_text("utf-8")
    train_characters([text], tmp_path / "tokenizer")
    settings = PrepareSettings(sequence_length=64, val_fraction=0.1, clean=False, workers=1)
    prepare([Source.of(path)], tmp_path / "tokenizer", tmp_path / "data", settings)
    data = TokenData.open(tmp_path / "data")
    ids = {c: i for i, c in enumerate(sorted(set(text)))}
    at = int(len(text) * 0.9)
    assert data.tokens("train").tolist() == [ids[c] for c in text[:at]]
    assert data.tokens("val").tolist() == [ids[c] for c in text[at:]]
    assert data.manifest.splits["val"].bytes == len(text) - at


def test_any_number_of_processes_makes_the_same_bytes(characters: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("quinze.training.data.prepare_text.BLOCK", 5000)
    source = Source.of(corpus(tmp_path / "corpus.jsonl"))
    made = []
    for workers in (1, 3):
        settings = PrepareSettings(sequence_length=32, val_fraction=0.1, workers=workers)
        prepare([source], characters, tmp_path / str(workers), settings)
        made.append(files(tmp_path / str(workers)))
        made[-1].pop("manifest.json")
    assert made[0] == made[1]


def test_every_document_is_there_once_and_in_order(characters: Path, tmp_path: Path):
    prepare([Source.of(corpus(tmp_path / "c.jsonl"))], characters, tmp_path / "data", SETTINGS)
    data = TokenData.open(tmp_path / "data", verify=True)
    tokenizer = load_tokenizer(characters)
    splits = data.manifest.splits
    both = "".join(tokenizer.decode(data.tokens(split).tolist()) for split in ("train", "val"))
    assert sorted(both.split("\n")) == sorted("".join(story(i) for i in range(300)).split("\n"))
    assert splits["train"].bytes + splits["val"].bytes == len(both.encode())
    assert 10 < splits["val"].documents < 60
    assert splits["train"].documents + splits["val"].documents == 300
    assert (np.asarray(data.token_bytes)[np.asarray(data.tokens("val"))]).sum() == splits["val"].bytes


def test_a_document_keeps_its_side_when_others_come(characters: Path, tmp_path: Path):
    sides = []
    for count in (200, 300):
        source = Source.of(corpus(tmp_path / f"{count}.jsonl", count))
        prepare([source], characters, tmp_path / str(count), SETTINGS)
        data = TokenData.open(tmp_path / str(count))
        sides.append(set(load_tokenizer(characters).decode(data.tokens("val").tolist()).split("\n")))
    assert sides[0] <= sides[1]


def test_copies_and_leaks_are_left_out_and_counted_with_examples(characters: Path, tmp_path: Path):
    texts = [story(i, 100) for i in range(300)]
    texts.append(texts[5])
    texts.append(texts[6].replace(WORDS[0], "changed", 1))
    # A long document whose beginning each of 40 others has whole: those on the other side have leaked.
    long = story(1000, 3000)
    texts += [long, *(" ".join(long.split()[i * 70 : i * 70 + 60]) for i in range(40))]
    source = Source.of_documents("made", lambda: texts)
    report = prepare([source], characters, tmp_path / "data", SETTINGS)
    dropped = report.manifest.dropped
    assert dropped["duplicate"].count == 1
    assert "made:301" in dropped["duplicate"].examples[0]
    assert "made:6" in dropped["duplicate"].examples[0]
    assert dropped["near duplicate"].count == 1
    assert 1 <= dropped["leak"].count <= 15
    assert report.manifest.leaked < 0.01
    source_counts = report.manifest.sources[0]
    assert source_counts.documents == len(texts)
    assert source_counts.kept == len(texts) - sum(d.count for d in dropped.values())


def test_documents_end_with_eos_and_can_be_kept_apart(chatty: Path, tmp_path: Path):
    texts = [f"the cat {i}" for i in range(400)]
    settings = PrepareSettings(
        sequence_length=32, val_fraction=0.1, workers=1, isolate_documents=True, near_duplicates="off"
    )
    prepare([Source.of_documents("made", lambda: texts)], chatty, tmp_path / "data", settings)
    data = TokenData.open(tmp_path / "data")
    eos = data.manifest.eos_id
    row = data.row("train", 1)
    assert row.segments is not None
    ends = row.ids == eos
    assert ends.any()
    assert (np.diff(row.segments) == ends[:-1]).all()
    assert (row.labels[ends] == IGNORE).all()
    assert (row.labels[~ends] != IGNORE).all()
    shown = preview(data, load_tokenizer(chatty), "train", 1)
    assert len(shown.documents) == len(set(row.segments.tolist()))


def test_what_was_prepared_is_not_prepared_again(characters: Path, tmp_path: Path):
    path = corpus(tmp_path / "corpus.jsonl")
    first = prepare([Source.of(path)], characters, tmp_path / "data", SETTINGS)
    again = prepare([Source.of(path)], characters, tmp_path / "data", SETTINGS)
    assert (first.reused, again.reused) == (False, True)
    corpus(path, 301)
    changed = prepare([Source.of(path)], characters, tmp_path / "data", SETTINGS)
    assert not changed.reused
    assert changed.manifest.sources[0].documents == 301


PREPARE = """
import sys
from pathlib import Path
import quinze.training.data.prepare_text as text
from quinze.training.data.manifest import PrepareSettings
from quinze.training.data.prepare import prepare
from quinze.training.data.sources import Source
text.BLOCK = 3000
corpus, tokenizer, folder = map(Path, sys.argv[1:])
print("begun", flush=True)
settings = PrepareSettings(sequence_length=32, val_fraction=0.1, workers=2)
prepare([Source.of(corpus)], tokenizer, folder, settings)
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_all_or_nothing_and_ends_the_same(characters: Path, tmp_path: Path):
    path = corpus(tmp_path / "corpus.jsonl", 1000)
    command = [sys.executable, "-c", PREPARE, str(path), str(characters)]
    began = time.monotonic()
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    seconds = time.monotonic() - began
    folder = tmp_path / "killed"
    rng = random.Random(4)
    for _ in range(3):
        process = subprocess.Popen([*command, str(folder)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.8 * seconds))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if folder.exists():
            TokenData.open(folder, verify=True)
    subprocess.run([*command, str(folder)], check=True, capture_output=True)
    TokenData.open(folder, verify=True)
    assert files(folder) == files(tmp_path / "whole")
    assert not list(tmp_path.glob(".killed*"))


def test_a_stopped_run_takes_up_what_was_finished(characters: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("quinze.training.data.prepare_text.BLOCK", 3000)
    source = Source.of(corpus(tmp_path / "corpus.jsonl"))
    done: list[str] = []
    from quinze.training.data import tasks

    run = tasks.Tasks.run
    monkeypatch.setattr(
        "quinze.training.data.tasks.Tasks.run",
        lambda self, task: done.append(type(task).__name__) or run(self, task),
    )

    def stop(progress: PrepareProgress) -> None:
        if progress.stage == "encode":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([source], characters, tmp_path / "data", SETTINGS, stop)
    assert not (tmp_path / "data").exists()
    assert done.count("CleanTexts") > 5
    done.clear()
    prepare([source], characters, tmp_path / "data", SETTINGS)
    assert done.count("CleanTexts") == 0
    assert done.count("EncodeTexts") > 3


def test_damage_is_found(characters: Path, tmp_path: Path):
    prepare([Source.of(corpus(tmp_path / "c.jsonl"))], characters, tmp_path / "data", SETTINGS)
    tokens = tmp_path / "data" / "train.tokens.bin"
    whole = tokens.read_bytes()
    tokens.write_bytes(whole[:-2])
    with pytest.raises(FileFormatError, match="manifest says"):
        TokenData.open(tmp_path / "data")
    tokens.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(FileFormatError, match="not what was written"):
        TokenData.open(tmp_path / "data", verify=True)


def test_what_cannot_be_prepared_is_refused(characters: Path, tmp_path: Path):
    source = Source.of(corpus(tmp_path / "corpus.jsonl", 3))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("keep me")
    with pytest.raises(ConflictError, match="something else"):
        prepare([source], characters, mine, SETTINGS)
    assert (mine / "letter.txt").read_text() == "keep me"
    with pytest.raises(InvalidRequestError, match="one more"):
        prepare([source], characters, tmp_path / "a", PrepareSettings(sequence_length=5000, workers=1))
    with pytest.raises(InvalidRequestError, match="empty: 1"):
        prepare([Source.of_documents("none", lambda: [" "])], characters, tmp_path / "a", SETTINGS)
    with pytest.raises(InvalidRequestError, match="nothing to prepare"):
        prepare([], characters, tmp_path / "a", SETTINGS)
    with pytest.raises(InvalidRequestError, match="one name"):
        prepare([source, source], characters, tmp_path / "a", SETTINGS)
    held = Workplace(tmp_path / "a", 0, "")
    with pytest.raises(BusyError):
        prepare([source], characters, tmp_path / "a", SETTINGS)
    held.close()
