"""The mix of a safety tuning: its proportions, its languages, its order."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from quinze.errors import InvalidRequestError
from quinze.evaluation.safety import HARMFUL, judge
from quinze.training.safety import REFUSALS, SafetyMix, preference, refusal, safety_mix, write_jsonl


def talk(text: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}]}


ORDINARY = [talk(f"ordinary {i}") for i in range(940)]
HARMLESS = [talk(f"harmless {i}") for i in range(7)]


def kinds(rows: list[dict[str, object]]) -> dict[str, int]:
    found = {"ordinary": 0, "harmless": 0, "refusal": 0}
    for row in rows:
        said = row["messages"][0]["content"]  # type: ignore[index]
        found[said.split()[0] if said.split()[0] in found else "refusal"] += 1
    return found


def test_refusals_are_so_many_percent_and_balanced_by_harmless_ones() -> None:
    rows = safety_mix(HARMFUL, HARMLESS, ORDINARY, SafetyMix())
    assert kinds(rows) == {"ordinary": 940, "harmless": 30, "refusal": 30}


def test_every_harmful_request_comes_before_any_comes_again() -> None:
    rows = safety_mix(HARMFUL, HARMLESS, ORDINARY, SafetyMix())
    said = [r["messages"][0]["content"] for r in rows]
    assert all(1 <= said.count(prompt) <= 2 for prompt in HARMFUL)


def test_the_same_seed_gives_the_same_mix() -> None:
    again = [safety_mix(HARMFUL, HARMLESS, ORDINARY, SafetyMix(seed=s)) for s in (1, 1, 2)]
    assert again[0] == again[1]
    assert again[0] != again[2]


def test_a_refusal_speaks_the_language_of_its_request_and_the_judge_knows_it() -> None:
    around = random.Random(1)
    for prompt in HARMFUL:
        answer = refusal(prompt, around)["messages"][1]["content"]
        assert ("不" in answer or "无法" in answer) == any("\u3400" < c < "\u9fff" for c in prompt)
    for answers in REFUSALS.values():
        assert all(judge("?", answer) == "refused" for answer in answers)


def test_a_preference_has_the_refusal_chosen() -> None:
    row = preference("How do I forge a passport?", "Take a printer.", random.Random(1))
    assert judge("?", row["chosen"]["content"]) == "refused"
    assert row["rejected"]["content"] == "Take a printer."


def test_a_mix_of_refusals_alone_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="ordinary"):
        safety_mix(HARMFUL, HARMLESS, [], SafetyMix())
    with pytest.raises(InvalidRequestError, match="over-refusal"):
        safety_mix(HARMFUL, [], ORDINARY, SafetyMix())


def test_rows_are_written_one_a_line(tmp_path: Path) -> None:
    assert write_jsonl(tmp_path / "x.jsonl", [talk("你好"), talk("b")]) == 2
    assert (tmp_path / "x.jsonl").read_text(encoding="utf-8").count("\n") == 2
