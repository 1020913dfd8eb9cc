"""`quinze classify`: zero-shot, its reliability, and the way to a head and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from quinze.cli.main import run

Quinze = Callable[..., tuple[int, str, str]]

SPORT = [
    "the match ended two to one",
    "a late goal won the game",
    "the team lost the final match",
    "she ran a race",
]
FOOD = [
    "knead the bread dough",
    "bake the cake in the oven",
    "a soup with rice and onions",
    "cook the meat slowly",
]


@pytest.fixture
def quinze(capsys: pytest.CaptureFixture[str]) -> Quinze:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    path = tmp_path / "labelled.csv"
    rows = [f'"{text}",{label}' for texts, label in ((SPORT, "sport"), (FOOD, "food")) for text in texts]
    path.write_text("text,label\n" + "\n".join(rows) + "\n", "utf-8")
    return path


def test_texts_come_from_the_command_or_a_file(quinze: Quinze, tmp_path: Path) -> None:
    code, out, _ = quinze("classify", "-l", "sport,food=bread and soup", SPORT[0], FOOD[0])
    assert code == 0
    assert [line.split("\t")[0] for line in out.splitlines()] == ["sport", "food"]
    (tmp_path / "t.txt").write_text(f"{FOOD[1]}\r\n\n{FOOD[2]}\n", "utf-8")
    code, out, _ = quinze(
        "classify", "-l", "sport,food", "-f", str(tmp_path / "t.txt"), "--abstain", "1", "--json"
    )
    assert code == 0
    assert [one["label"] for one in json.loads(out)["data"]] == [None, None]
    assert quinze("classify", "-l", "sport", "x")[0] == 2


def test_a_check_tells_how_reliable_it_is_and_what_it_would_take(quinze: Quinze, labelled: Path) -> None:
    code, out, err = quinze("classify", "-l", "sport,food", "--check", str(labelled), "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["reliability"]["examples"] == 8
    assert told["reliability"]["chance"] == 0.5
    assert told["needed"]["words"]
    assert told["curve"]
    assert quinze("classify", "--multi", "--check", str(labelled))[0] == 2
    assert "Least sure of" in quinze("classify", "-l", "sport,food", "--check", str(labelled))[1]


def test_a_head_is_trained_kept_and_used(quinze: Quinze, labelled: Path, tmp_path: Path) -> None:
    head = str(tmp_path / "a.head")
    assert quinze("classify", "--train", str(labelled), "-o", head)[0] == 0
    code, out, _ = quinze("classify", "--head", head, "a goal in the match", "bread in the oven", "--json")
    assert code == 0
    assert [one["label"] for one in json.loads(out)["data"]] == ["sport", "food"]
    Path(head).write_bytes(b"no head")
    assert quinze("classify", "--head", head, "x")[0] == 5


@pytest.mark.parametrize("text", ["text,label\n,\n", "a,b\n1,2\n", "", '"', "text,label\nx\n"], ids=repr)
def test_broken_examples_are_refused(quinze: Quinze, tmp_path: Path, text: str) -> None:
    (tmp_path / "x.csv").write_text(text, "utf-8")
    assert quinze("classify", "--train", str(tmp_path / "x.csv"), "-o", str(tmp_path / "h"))[0] == 5
