"""From a text to a served file, by the command line alone: each command as a person types it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from quinze.cli.main import run

WORDS = "the cat sat on a mat and the dog ran to a hill while it rained over town".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("training")
    draw = random.Random(0)
    text = "\n".join(" ".join(draw.choices(WORDS, k=9)) for _ in range(800))
    (made / "text.txt").write_text(text, "utf-8")
    return made


@pytest.fixture(scope="module")
def prepared(folder: Path) -> Path:
    text, tokenizer = str(folder / "text.txt"), str(folder / "tokenizer")
    assert run(["tokenizer", "train", tokenizer, text, "--vocab-size", "300"]) == 0
    made = ["data", "prepare", str(folder / "data"), text, "--tokenizer", tokenizer, "--length", "96"]
    assert run([*made, "--validation", "0.1"]) == 0
    return folder


SMALL = [
    *("--set", "model.hidden_size=32"), *("--set", "model.intermediate_size=64"),
    *("--set", "model.num_hidden_layers=1"), *("--set", "model.num_attention_heads=2"),
    *("--set", "model.num_key_value_heads=2"), *("--set", "evaluation.times=1"), *("--set", "batch.rows=4"),
    *("--set", "runtime.threads=1"), *("--set", "runtime.compile=off"),
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(prepared: Path) -> Path:
    told = ["train", "pretrain", str(prepared / "run"), "--data", str(prepared / "data")]
    assert run([*told, "--tokenizer", str(prepared / "tokenizer"), "--steps", "6", *SMALL]) == 0
    return prepared


def test_the_vocabulary_tells_what_it_is_worth(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = ["tokenizer", "train", str(folder / "other"), f"cats={folder / 'text.txt'}", "--vocab-size", "300"]
    assert run([*made, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["vocab_size"] <= 300
    assert report["held_out"]["cats"]["bytes_per_token"] > 1.5


def test_a_row_is_shown_with_what_is_learned(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = ["data", "show", str(prepared / "data"), "--row", "0", "--tokenizer", str(prepared / "tokenizer")]
    assert run([*shown, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    text = "".join(span["text"] for document in row["documents"] for span in document)
    assert set(text.split()[1:-1]) <= set(WORDS)
    assert row["supervised_tokens"] == 96


def test_a_run_leaves_a_model_that_the_engine_serves(
    trained: Path, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    capsys.readouterr()
    assert run(["run", str(trained / "run" / "final"), "the cat", "--max-tokens", "4"]) == 0
    assert capsys.readouterr().out.strip()


def test_the_same_command_goes_on_and_says_so_when_nothing_is_left(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its folder keeps the settings: they need not be said again."""
    assert run(["train", "pretrain", str(trained / "run"), "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["type"], last["step"]) == ("end", 6)


def test_what_is_exported_is_certified(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = trained / "model.gguf"
    assert (
        run(["export", str(trained / "run"), "--to", "gguf", "-o", str(out), "--level", "f32", "--json"]) == 0
    )
    proof = json.loads(capsys.readouterr().out)["certificate"]
    (comparison,) = proof["comparisons"]
    assert {check["name"]: check["outcome"] for check in comparison["checks"]}["greedy"] == "equal"
    assert (trained / "model.gguf.certificate" / "certificate.md").is_file()


def test_an_adapter_is_tuned_on_conversations_and_merged_into_its_base(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = [
        {
            "messages": [
                {"role": "user", "content": f"where {word}"},
                {"role": "assistant", "content": f"on {word}"},
            ]
        }
        for word in sorted(set(WORDS))
    ]
    (trained / "talk.jsonl").write_text("\n".join(map(json.dumps, talk)), "utf-8")
    prepare = ["data", "prepare", str(trained / "chat"), str(trained / "talk.jsonl"), "--kind", "chat"]
    more = ["--tokenizer", str(trained / "tokenizer"), "--length", "96", "--validation", "0.2"]
    assert run([*prepare, *more, "--set", "near_duplicates=off"]) == 0
    base, out = str(trained / "run" / "final"), str(trained / "tuned")
    tune = [
        "train",
        "sft",
        out,
        "--data",
        str(trained / "chat"),
        "--base",
        base,
        "--lora",
        "2",
        "--steps",
        "3",
    ]
    assert (
        run([*tune, "--set", "evaluation.times=1", "--set", "batch.rows=2", "--set", "runtime.threads=1"])
        == 0
    )
    capsys.readouterr()
    assert run(["merge", out, "-o", str(trained / "merged"), "--json"]) == 0
    (comparison,) = json.loads(capsys.readouterr().out)["certificate"]["comparisons"]
    assert {check["outcome"] for check in comparison["checks"]} == {"equal"}


def test_the_doctor_reads_the_log_of_a_run(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", str(trained / "run"), "--language", "zh", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 6
    floors = next(finding for finding in found["findings"] if finding["id"] == "B2.floors")
    assert floors["evidence"]["uniform"] > floors["evidence"]["bigram"]


def test_a_plan_is_a_run_that_can_be_begun(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = prepared / "planned.toml"
    asked = ["plan", "--params", "0.2M", "--data", str(prepared / "data"), "-o", str(out), "--quick"]
    assert run([*asked, "--json"]) == 0
    proposal = json.loads(capsys.readouterr().out)
    assert 100_000 < sum(proposal["parts"].values()) < 400_000
    assert proposal["sequence_length"] == 96
    from quinze.training.run_config import load_run_config

    assert load_run_config(out).model.hidden_size == proposal["hidden_size"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["train", "pretrain", "run", "--steps", "3"], 2, "no data"),
        (["train", "pretrain", "run", "--data", "nowhere", "--steps", "3"], 3, "prepared data"),
        (["train", "pretrain", "run", "--data", "x", "--set", "model.hiden_size=3"], 2, "hidden_size"),
        (["train", "sft", "run", "--data", "x", "--lora", "4"], 2, "base"),
        (["train", "stop", "nowhere"], 3, "no training run"),
        (["data", "prepare", "out", "missing.txt", "--tokenizer", "."], 2, "no file or folder"),
        (["plan", "--params", "many"], 2, "no count"),
    ],
)
def test_a_mistake_is_named(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, home: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == code
    assert said in capsys.readouterr().err


def test_a_run_is_known_afterwards_and_can_be_watched(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "watch", str(trained / "run"), "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["step"] for event in events if event["type"] == "step"] == [1, 2, 3, 4, 5, 6]
    assert events[-1]["type"] == "end"
    assert run(["train", "ls", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["name"], found["state"], found["step"]) == ("run", "finished", 6)
    assert run(["train", "watch", "nothing"]) == 3
    assert "quinze train ls" in capsys.readouterr().err


def test_with_a_deadline_evaluations_read_fewer_rows_to_keep_to_their_share(prepared: Path) -> None:
    rows = {}
    for share in (0.0001, 1.0):
        folder = prepared / f"share-{share}"
        told = ["train", "pretrain", str(folder), "--data", str(prepared / "data"), "--minutes", "0.1"]
        assert run([*told, *SMALL, "--set", f"evaluation.share={share}", "--no-doctor"]) == 0
        states = [json.loads(path.read_text()) for path in folder.glob("checkpoints/*/state.json")]
        rows[share] = states[0]["counters"]["evaluation_rows"]
    assert rows == {0.0001: 4, 1.0: None}  # one batch; all
