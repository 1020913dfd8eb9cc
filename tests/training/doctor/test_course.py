"""Rules of "during" on curves made for them, what they remember, both languages, and foreign logs."""

from __future__ import annotations

import json
import math
import string
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from quinze.errors import CheckpointError, FileFormatError, NotFoundError
from quinze.training.doctor import Doctor, DoctorSettings, Floors, diagnose, translate
from quinze.training.doctor.course import Known
from quinze.training.doctor.during_flow import repeated_share
from quinze.training.doctor.during_loss import fit_curve
from quinze.training.doctor.words import TABLES, finding
from quinze.training.doctor.words.english import ENGLISH
from quinze.training.events import EvaluationReport, Finding, SampleReport, StepReport
from quinze.training.watch import Plan, Probe

FLOORS = Floors(
    vocab_size=100, uniform=math.log(100), unigram=3.5, bigram=2.6, trigram=2.0, tokens_counted=10**6,
    tokens_scored=10**5, all_counted=True, bytes_per_token=1.0,
)  # fmt: skip


def healthy(step: int, of: int) -> float:
    return 1.6 + 2.6 * (1 + step / of * 60) ** -0.5 + 0.02 * math.sin(step * 7)


def watched(
    curve: Any,
    steps: int = 400,
    *,
    method: Any = "pretrain",
    doctor: Doctor | None = None,
    first: int = 1,
    **more: Any,
) -> list[Finding]:
    """The findings of a run with that curve; `more`: fields of the report or the probe, or functions of the
    step that give them."""
    if doctor is None:
        doctor = Doctor()
        doctor.know(Known(doctor.settings, method, 100, FLOORS, Plan(steps=steps, warmup=0.02)))
    found: list[Finding] = []
    last = more.pop("last", steps)
    for step in range(first, last + 1):
        given = {key: value(step) if callable(value) else value for key, value in more.items()}
        report = {
            "step": step, "tokens": step * 100, "epoch": step / steps, "seconds": step * 1.0,
            "loss": curve(step, steps),
            "learning_rate": 1.0, "grad_norm": 1.0, "tokens_per_second": 100.0, "progress": step / steps,
            "eta_seconds": 0.0,
        }  # fmt: skip
        report |= {key: given.pop(key) for key in list(given) if key in StepReport.__struct_fields__}
        found += doctor.step(Probe(StepReport(**report), **{"step_seconds": 1.0, **given}))
        if any(one.severity == "stop" for one in found):
            break  # as the trainer does
    return found


def named(found: list[Finding]) -> set[str]:
    return {one.id for one in found if one.severity != "info"}


def test_a_healthy_curve_is_left_alone() -> None:
    found = watched(healthy, evaluation=lambda s: held(s, healthy(s, 400) + 0.1) if s % 40 == 0 else None)
    assert named(found) == set()
    forecast = [one for one in found if one.id == "D4.forecast"]
    assert len(forecast) == 1, "at half of the run; at a quarter the curve is too short"
    assert forecast[0].evidence["low"] <= healthy(400, 400) <= forecast[0].evidence["high"]  # type: ignore[operator]


def held(step: int, loss: float, train: float | None = None) -> EvaluationReport:
    return EvaluationReport(
        step=step, seconds=0.0, split="val", loss=loss, bits_per_byte=None, best=False, train_loss=train
    )


def spiking(at: set[int]) -> Any:
    return lambda step, of: healthy(step, of) + (3.0 if step in at else 0.0)


def test_curves_that_go_wrong() -> None:
    assert {one.id: one.severity for one in watched(spiking({200}))}["D2.spike"] == "info"
    assert named(watched(spiking({200, 210, 220}))) == {"D2.spikes"}
    rising = watched(lambda s, of: healthy(s, of) if s < 200 else healthy(200, of) + (s - 200) * 0.02)
    assert "D2.diverging" in named(rising)
    assert named(watched(lambda s, of: 3.5)) == {"D3.only-frequencies"}
    assert named(watched(lambda s, of: 3.0)) == {"D3.below-bigram"}
    assert named(watched(lambda s, of: 4.6 * 0.97**s)) == {"D4.too-good"}
    assert named(watched(lambda s, of: 0.0, last=5)) == {"D1.zero-loss"}
    flat = watched(lambda s, of: max(healthy(s, of), 2.2), steps=2000)
    assert "D5.plateau" in {one.id for one in flat}
    decaying = watched(lambda s, of: max(healthy(s, of), 2.2), steps=2000, learning_rate=0.5)
    assert "D5.plateau" not in {one.id for one in decaying}


def test_a_nan_silences_no_rule_that_comes_after_it() -> None:
    """OLMo-core's lesson: one NaN in a window used to hide everything for 129 steps."""
    found = watched(lambda s, of: math.nan if s == 100 else spiking({150, 160, 170})(s, of))
    assert named(found) == {"D1.non-finite", "D2.spikes"}


def test_overfitting_needs_three_worse_evaluations_and_a_falling_training_loss() -> None:
    def evaluations(losses: list[float], train: list[float]) -> Any:
        return lambda s: held(s, losses[s // 40 - 1], train[s // 40 - 1]) if s % 40 == 0 else None

    worse = [2.0, 1.9, 1.8, 1.83, 1.86, 1.9, 1.95, 2.0, 2.1, 2.2]
    falling = [2.0 - 0.1 * i for i in range(10)]
    assert named(watched(healthy, evaluation=evaluations(worse, falling))) == {"D6.overfitting"}
    wobbling = [2.0, 1.9, 1.8, 1.81, 1.79, 1.8, 1.78, 1.79, 1.77, 1.78]
    assert named(watched(healthy, evaluation=evaluations(wobbling, falling))) == set()
    assert named(watched(healthy, evaluation=evaluations(worse, worse))) == set()


def test_speed() -> None:
    assert named(watched(healthy, data_seconds=0.5)) == {"D10.starving"}
    assert named(watched(healthy, data_seconds=0.05)) == set()
    assert named(watched(healthy, step_seconds=lambda s: 1.0 if s < 200 else 2.5)) == {"D10.slower"}
    assert named(watched(healthy, step_seconds=lambda s: 9.0 if s == 200 else 1.0)) == set()


def test_samples_that_repeat_themselves() -> None:
    assert repeated_share("the cat sat on the mat " * 6) > 0.7
    assert repeated_share("白日依山尽黄河入海流欲穷千里目更上一层楼") == 0
    loop = SampleReport(step=300, prompt="", text="again and again and " * 9)
    ids = {one.id for one in watched(healthy, samples=lambda s: [loop] if s == 300 else [])}
    assert "D11.repeats" in ids


def test_preferences() -> None:
    def panel(**values: Any) -> Any:
        return lambda s: {key: value(s) for key, value in values.items()}

    still = watched(lambda s, of: math.log(2), method="dpo")
    assert named(still) == {"D12.nothing-trained"}
    learning = panel(chosen=lambda s: -50 + s / 100, rejected=lambda s: -50 - s / 10, accuracy=lambda s: 0.7)
    loss = lambda s, of: 0.69 - 0.3 * s / of  # noqa: E731
    assert named(watched(loss, method="dpo", extra=learning)) == set()
    falling = panel(chosen=lambda s: -50 - s / 10, rejected=lambda s: -50 - s / 5, accuracy=lambda s: 0.7)
    assert named(watched(loss, method="dpo", extra=falling)) == {"D12.both-falling"}
    easy = panel(chosen=lambda s: -50, rejected=lambda s: -60 - s, accuracy=lambda s: 1.0)
    assert named(watched(lambda s, of: 0.1, method="dpo", extra=easy)) == {"D12.too-easy"}


def test_rows_that_are_read_again_after_a_resume() -> None:
    order = np.random.default_rng(0).permutation(4000)

    def rows(step: int) -> list[int]:
        at = step if step < 200 else step - 100  # the resume went back a hundred steps
        return [int(row) for row in order[at * 8 : at * 8 + 8]]

    assert named(watched(healthy, rows=rows, epoch=0.5, last=250)) == {"D13.replayed"}
    assert named(watched(healthy, rows=lambda s: rows(s)[:8], epoch=0.5, last=150)) == set()


def test_a_resumed_doctor_judges_as_an_unbroken_one() -> None:
    curve = spiking({150, 195, 210})
    rows = {"rows": lambda s: [s * 3 % 997, s * 5 % 997], "epoch": 0.0}
    unbroken = watched(curve, **rows)
    first = Doctor()
    first.know(Known(first.settings, "pretrain", 100, FLOORS, Plan(steps=400, warmup=0.02)))
    found = watched(curve, doctor=first, last=200, **rows)
    state = msgspec.json.decode(msgspec.json.encode(first.state_dict()))
    second = Doctor()
    second.know(first.known)
    second.load_state_dict(state)
    found += watched(curve, doctor=second, first=201, **rows)
    assert found == unbroken
    with pytest.raises(CheckpointError):
        second.load_state_dict({"version": 7})


def test_every_sentence_has_a_twin_with_the_same_numbers() -> None:
    assert set(TABLES["zh"]) == set(TABLES["en"])
    for id_, english in ENGLISH.items():
        for mine, other in zip(english, TABLES["zh"][id_], strict=True):
            fields = [{(n, s) for _, n, s, _ in string.Formatter().parse(t) if n} for t in (mine, other)]
            assert fields[0] == fields[1], id_
            assert bool(mine) == bool(other), id_


def test_a_finding_written_in_one_language_is_read_in_the_other() -> None:
    english = finding("D10.starving", "warning", at_step=30, share=0.42, factor=1.7)
    chinese = translate(english, "zh")
    assert "42%" in english.verdict
    assert "42%" in chinese.verdict
    assert "数据" in chinese.verdict
    assert translate(chinese, "en") == english
    stranger = msgspec.structs.replace(english, id="X1.other")
    assert translate(stranger, "zh") == stranger
    quiet = Doctor(DoctorSettings(quiet=("D3",), language="zh"))
    quiet.know(Known(quiet.settings, "pretrain", 100, FLOORS, Plan(steps=400)))
    assert named(watched(lambda s, of: 3.5, doctor=quiet)) == set()


def test_a_curve_is_fitted_where_it_leads() -> None:
    steps = np.arange(1.0, 500.0)
    told = fit_curve(steps, 2.0 + 3.0 * (steps / 1000) ** -0.4, 1000.0)
    assert told is not None
    assert told[0] == pytest.approx(5.0, rel=0.02)
    assert fit_curve(steps, steps / 100, 1000.0) is None


def write_log(folder: Path, losses: list[float | None]) -> Path:
    lines = [
        {"type": "step", "step": i, "tokens": i * 100, "epoch": 0.0, "seconds": i * 1.0, "loss": loss,
         "learning_rate": 1.0, "grad_norm": 1.0, "tokens_per_second": 100.0, "progress": i / len(losses),
         "eta_seconds": 0.0}
        for i, loss in enumerate(losses, 1)
    ]  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + '{"type": "step", "ste', "utf-8")
    (folder / "floors.json").write_bytes(msgspec.json.encode(FLOORS))
    return folder


def test_our_own_log_is_read_with_its_floors_and_a_torn_last_line(tmp_path: Path) -> None:
    found = diagnose(write_log(tmp_path, [*[3.5] * 99, None]))
    assert (found.steps, found.source) == (100, "quinze")
    assert named(found.findings) == {"D3.only-frequencies", "D1.non-finite"}


def test_the_log_of_hugging_faces_trainer_is_read_with_its_nans_and_evaluations(tmp_path: Path) -> None:
    """Entries as transformers 4.57 writes them: strings are not numbers there, NaN is."""
    history: list[dict[str, Any]] = []
    for i in range(1, 101):
        history.append(
            {"epoch": i / 50, "grad_norm": 1.0, "learning_rate": 1e-4, "loss": 2 - i / 100, "step": i * 10}
        )
        if i % 10 == 0:
            history.append({"epoch": i / 50, "eval_loss": 1.5 + (i / 100 - 0.4) ** 2, "step": i * 10})
    path = tmp_path / "checkpoint-1000"
    path.mkdir()
    (path / "trainer_state.json").write_text(json.dumps({"max_steps": 1000, "log_history": history}), "utf-8")
    found = diagnose(tmp_path, method="sft", vocab_size=32000)
    assert (found.steps, found.source) == (100, "huggingface")
    assert named(found.findings) == {"D6.overfitting"}
    zero = [{"loss": 0.0, "grad_norm": math.nan, "learning_rate": 0.0, "step": i} for i in range(1, 9)]
    (path / "trainer_state.json").write_text(json.dumps({"log_history": zero}), "utf-8")
    assert named(diagnose(path).findings) == {"D1.zero-loss", "D1.non-finite", "D1.non-finite-again"}


def test_what_is_no_log_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        diagnose(tmp_path)
    (tmp_path / "trainer_state.json").write_text("[1, 2]", "utf-8")
    with pytest.raises(FileFormatError, match="log_history"):
        diagnose(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("hello\nworld\nagain\n", "utf-8")
    with pytest.raises(FileFormatError, match="Line 1"):
        diagnose(tmp_path / "metrics.jsonl")
    (tmp_path / "metrics.jsonl").write_text("", "utf-8")
    with pytest.raises(FileFormatError, match="no training step"):
        diagnose(tmp_path / "metrics.jsonl")
