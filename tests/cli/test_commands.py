"""The terminal: results on standard output, everything else beside it, and exit codes that tell the truth."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quinze.cli.main import run

LEASE = """# Lease of the flat

## Rent

The rent is 1,250 euros a month. It is paid by the fifth day of each month to the landlord.

## Pets

Cats are welcome. Dogs need the written consent of the landlord.
"""
GARDEN = "# 花园\n\n玫瑰在三月修剪，每株留下四到五个芽。\n\n番茄每隔两天浇一次水。\n"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "lease.md").write_text(LEASE, "utf-8")
    (folder / "花园.md").write_text(GARDEN, "utf-8")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing of use")
    return folder


@pytest.fixture
def quinze(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`quinze("ls", "--json")` -> (exit code, standard output, standard error)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


def as_json(told: tuple[int, str, str]) -> Any:
    code, out, err = told
    assert code == 0, err
    return json.loads(out)


def test_documents_are_read_asked_and_removed(quinze: Callable[..., Any], notes: Path) -> None:
    code, out, err = quinze("kb", "add", "home", str(notes))
    assert code == 0
    assert "2 added, 1 could not be read" in out
    assert "broken.pdf" in err, "the file that could not be read is named"

    answer = as_json(quinze("ask", "home", "How much is the rent?", "--json"))
    assert set(answer) >= {"answer", "kind", "citations", "searched"}
    assert answer["kind"] == "quoted"
    first = answer["citations"][0]
    assert first["document"].endswith("lease.md")
    assert "1,250 euros" in first["text"]
    assert "Rent" in first["place"]
    assert isinstance(first["score"], float)

    answer = as_json(quinze("ask", "home", "番茄多久浇一次水？", "--json"))
    assert "每隔两天" in answer["citations"][0]["text"]

    assert [base["name"] for base in as_json(quinze("kb", "ls", "--json"))] == ["home"]
    shown = as_json(quinze("kb", "show", "home", "--json"))
    assert {info["status"] for info in shown["contents"]} == {"ready", "failed"}
    hits = as_json(quinze("kb", "search", "home", "dogs consent", "--json"))["hits"]
    assert "written consent" in hits[0]["text"]

    assert quinze("kb", "rm", "home", "--yes")[0] == 0
    assert as_json(quinze("kb", "ls", "--json")) == []
    assert (notes / "lease.md").exists(), "a person's own files stay"


def test_a_second_run_reads_nothing_again(quinze: Callable[..., Any], notes: Path) -> None:
    quinze("kb", "add", "home", str(notes))
    again = as_json(quinze("kb", "add", "home", str(notes), "--json"))
    assert (again["added"], again["updated"]) == (0, 0)
    assert again["skipped"] >= 2


def test_an_answer_for_a_person_shows_quote_number_and_source(
    quinze: Callable[..., Any], notes: Path
) -> None:
    quinze("kb", "add", "home", str(notes))
    code, out, err = quinze("ask", "home", "May I keep dogs?")
    assert code == 0
    assert "written consent of the landlord" in out
    assert "[1]" in out
    assert "lease.md" in out
    assert "Searched 2 documents" in err


def test_a_question_that_nothing_answers_says_so(quinze: Callable[..., Any], notes: Path) -> None:
    quinze("kb", "add", "home", str(notes))
    answer = as_json(quinze("ask", "home", "Who discovered the neutron star?", "--json"))
    assert answer["kind"] == "none"
    assert answer["citations"] == []
    assert answer["answer"], "it says in words that nothing was found"
    code, out, _ = quinze("ask", "home", "谁发现了中子星？")
    assert code == 0
    assert any("一" <= character <= "鿿" for character in out), "in the language of the question"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("ask", "nowhere", "anything"), 3),
        (("kb", "search", "nowhere", "anything"), 3),
        (("kb", "rm", "nowhere", "--yes"), 3),
        (("kb", "add", "../outside", "."), 2),
        (("kb", "add", "home", "no-such-file.txt"), 2),
        (("run", "no-such-model", "text"), 3),
        (("show", "no-such-model"), 3),
        (("rm", "no-such-model"), 3),
        (("chat",), 3),
        (("ls", "--no-such-option"), 2),
        (("no-such-command",), 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_goes_wrong_has_its_own_exit_code(
    quinze: Callable[..., Any], arguments: tuple[str, ...], code: int
) -> None:
    outcome, out, err = quinze(*arguments)
    assert outcome == code, err
    assert out == ""
    assert err


def test_an_error_as_json_is_one_line_beside_the_result(quinze: Callable[..., Any]) -> None:
    code, out, err = quinze("ask", "nowhere", "anything", "--json")
    assert (code, out) == (3, "")
    error = json.loads(err)["error"]
    assert error["code"] == "knowledge_base_not_found"
    assert "nowhere" in error["message"]
    assert error["hint"]


def test_only_unreadable_files_is_a_failure_and_strict_makes_any_one(
    quinze: Callable[..., Any], notes: Path
) -> None:
    assert quinze("kb", "add", "home", str(notes / "broken.pdf"))[0] == 5
    assert quinze("kb", "add", "strict", str(notes), "--strict")[0] == 5
    assert quinze("kb", "add", "lenient", str(notes))[0] == 0


def test_a_model_is_named_shown_run_and_forgotten(
    quinze: Callable[..., Any], shared: Callable[[str], Path]
) -> None:
    model = shared("data/models/stories260K.bin")
    assert as_json(quinze("add", str(model), "--name", "stories", "--json"))["name"] == "stories"
    assert [info["name"] for info in as_json(quinze("ls", "--json"))] == ["stories"]
    assert as_json(quinze("show", "stories", "--json"))["parameters"] == 260_032

    reply = as_json(
        quinze("run", "stories", "Once upon a time", "--temperature", "0", "--max-tokens", "20", "--json")
    )
    golden = shared("data/models/stories260K.greedy.txt").read_text("utf-8")
    assert golden.strip().startswith(("Once upon a time" + reply["text"]).strip())
    assert reply["usage"]["completion_tokens"] == 20
    assert reply["finish_reason"] == "length"

    code, out, _ = quinze("run", str(model), "Once upon a time", "--temperature", "0", "--max-tokens", "20")
    assert code == 0
    assert out.rstrip("\n") == "Once upon a time" + reply["text"], "streamed is what was whole"

    assert quinze("rm", "stories")[0] == 0
    assert as_json(quinze("ls", "--json")) == []
    assert model.exists()


def test_a_reply_is_bound_to_a_schema_or_a_pattern(
    quinze: Callable[..., Any], shared: Callable[[str], Path], tmp_path: Path
) -> None:
    shared("data/models/tok512.bin")
    model, schema = str(shared("data/models/stories260K.bin")), tmp_path / "answer.json"
    schema.write_text('{"type": "array", "items": {"enum": [1, 5]}, "minItems": 2, "maxItems": 2}', "utf-8")
    told = as_json(quinze("run", model, "Once", "--schema", str(schema), "--json"))
    assert set(json.loads(told["text"])) <= {1, 5}
    assert told["finish_reason"] == "stop"
    assert as_json(quinze("run", model, "Once", "--regex", "fifteen", "--json"))["text"] == "fifteen"
    schema.write_text('{"not": {}}', "utf-8")
    code, _, err = quinze("run", model, "Once", "--schema", str(schema))
    assert code != 0
    assert "--schema" in err
    assert "not" in err


def test_a_model_that_cannot_talk_says_what_it_can(
    quinze: Callable[..., Any], shared: Callable[[str], Path]
) -> None:
    code, _, err = quinze("chat", str(shared("data/models/stories260K.bin")))
    assert code == 2
    assert "quinze run" in err


def test_vectors_of_texts(quinze: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    told = as_json(quinze("embed", "a cat", "a cat", "租金", "--json"))
    vectors = [row["embedding"] for row in told["data"]]
    assert len(vectors[0]) == told["dimensions"]
    assert vectors[0] == vectors[1] != vectors[2]
    code, out, _ = quinze("embed", "a cat")
    assert code == 0
    assert len(out.split()) == told["dimensions"]


def command(*arguments: str, home: Path, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "quinze.cli", *arguments],
        env={**os.environ, "QUINZE_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def test_a_reader_that_hangs_up_ends_it_quietly(home: Path) -> None:
    process = command("embed", *["text"] * 2000, home=home)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    complaint = process.stderr.read()
    assert process.wait(60) == 1, "click's code for it"
    assert complaint == ""


def test_ctrl_c_while_reading_keeps_what_was_read(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(3000):
        (folder / f"{number:04}.txt").write_text(f"The number of this page is {number}.", "utf-8")
    process = command("kb", "add", "many", str(folder), "--verbose", home=home)
    assert process.stderr is not None
    while "✓" not in process.stderr.readline():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "goes on from here" in err
    again = command("kb", "add", "many", str(folder), "--json", home=home)
    report = json.loads(again.communicate(timeout=250)[0])
    assert report["skipped"] >= 1
    assert report["added"] + report["skipped"] == 3000
