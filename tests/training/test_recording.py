"""metrics.jsonl and TensorBoard's files."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from quinze.training.events import EvaluationReport, RunEnd, StepReport
from quinze.training.recording import EventFile, Recorder, crc32c, read_metrics


def step(number: int) -> StepReport:
    return StepReport(
        step=number, tokens=number * 100, epoch=0.1, seconds=1.0, loss=2.0 / number, learning_rate=1.0,
        grad_norm=0.5, tokens_per_second=100.0, progress=0.1, eta_seconds=9.0, extra={"margin": 0.25},
    )  # fmt: skip


def end(number: int) -> RunEnd:
    return RunEnd(reason="interrupted", step=number, seconds=1.0, best_step=None, best_loss=None, model=None)


def test_a_run_that_goes_on_forgets_what_will_happen_again(tmp_path: Path) -> None:
    first = Recorder(tmp_path, 0)
    for number in (1, 2, 3):
        first.write(step(number))
    first.write(end(3))
    first.close()
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"type": "step", "st')  # killed while it wrote
    second = Recorder(tmp_path, 2)
    second.write(step(3))
    second.close()
    assert read_metrics(tmp_path) == [step(1), step(2), step(3)]


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_crc32c_is_that_of_rfc_3720(data: bytes, wanted: int) -> None:
    assert crc32c(data) == wanted


def test_an_event_file_is_framed_as_tensorflow_frames_it(tmp_path: Path) -> None:
    """The first record is the known one of every such file."""
    file = EventFile(tmp_path, 0)
    file.scalars(300, {"train/loss": 1.5})
    file.close()
    (path,) = tmp_path.glob("events.out.tfevents.*")
    data, records = path.read_bytes(), []
    while data:
        (length,) = struct.unpack_from("<Q", data)
        records.append(data[12 : 12 + length])
        data = data[12 + length + 4 :]
    assert records[0][9:] == b"\x1a\x0dbrain.Event:2"
    # step (field 2) 300; summary (5) of a value (1) with its tag (1) and simple_value (2)
    assert records[1][9:] == b"\x10\xac\x02\x2a\x13\x0a\x11\x0a\x0atrain/loss\x15" + struct.pack("<f", 1.5)


def test_tensorboard_reads_it(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    recorder = Recorder(tmp_path, 0)
    recorder.write(step(1))
    recorder.write(step(2))
    recorder.write(
        EvaluationReport(
            step=2, seconds=1.0, split="val", loss=1.25, bits_per_byte=0.5, best=True, train_loss=None
        )
    )
    recorder.close()
    seen = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    seen.Reload()
    assert [(x.step, x.value) for x in seen.Scalars("train/loss")] == [(1, 2.0), (2, 1.0)]
    assert [x.value for x in seen.Scalars("val/bits_per_byte")] == [0.5]
