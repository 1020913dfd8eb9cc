"""What a run leaves to be looked at: metrics.jsonl, every event on a line; and TensorBoard's event files.

TensorBoard's format is written here in some lines, so that nobody needs its package to train: records as
TFRecord frames them (length, masked CRC-32C, data, masked CRC-32C), holding Event messages of protobuf.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import BinaryIO

import msgspec

from quinze.paths import atomic_write
from quinze.training.events import (
    CheckpointReport,
    EvaluationReport,
    RunEnd,
    SampleReport,
    StepReport,
    TrainingEvent,
)

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"


class Recorder:
    """Writes each event as it happens."""

    def __init__(self, folder: Path, step: int) -> None:
        """step  where the run goes on: what was recorded of later ones will happen again, and is cut off."""
        folder.mkdir(parents=True, exist_ok=True)
        self._cut(folder / METRICS, step)
        self._lines = (folder / METRICS).open("ab")
        self._board = EventFile(folder / TENSORBOARD, step)
        self._encode = msgspec.json.Encoder().encode

    def write(self, event: TrainingEvent) -> None:
        self._lines.write(self._encode(event) + b"\n")
        self._lines.flush()
        self._board.scalars(event.step or 0, _scalars(event))

    def close(self) -> None:
        self._lines.close()
        self._board.close()

    def _cut(self, path: Path, step: int) -> None:
        if not path.is_file():
            return
        kept = [event for event in read_metrics(path.parent) if (event.step or 0) <= step and not _end(event)]
        with atomic_write(path) as file:
            file.writelines(msgspec.json.encode(event) + b"\n" for event in kept)


def _end(event: TrainingEvent) -> bool:
    """The end of an earlier attempt, or the state that it saved on its way out."""
    return isinstance(event, RunEnd)


def read_metrics(folder: Path) -> list[TrainingEvent]:
    """Every event of a run so far. The last line may be half written, and is then left out."""
    decoder = msgspec.json.Decoder(TrainingEvent)
    found: list[TrainingEvent] = []
    with contextlib.suppress(FileNotFoundError):
        for line in (folder / METRICS).read_bytes().splitlines():
            with contextlib.suppress(msgspec.MsgspecError):
                found.append(decoder.decode(line))
    return found


def _scalars(event: TrainingEvent) -> dict[str, float]:
    match event:
        case StepReport():
            found = {
                "train/loss": event.loss, "train/learning_rate": event.learning_rate,
                "train/tokens_per_second": event.tokens_per_second, "train/tokens": float(event.tokens),
            }  # fmt: skip
            if event.grad_norm is not None:
                found["train/grad_norm"] = event.grad_norm
            return found | {f"train/{name}": value for name, value in event.extra.items()}
        case EvaluationReport():
            bits = event.bits_per_byte
            more = {} if bits is None else {f"{event.split}/bits_per_byte": bits}
            return {f"{event.split}/loss": event.loss} | more
        case CheckpointReport() | SampleReport() | RunEnd():
            return {}
    return {}


class EventFile:
    """One events.out.tfevents file. TensorBoard shows the files of a folder as one run."""

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = (folder / f"events.out.tfevents.{time.time_ns()}.{step}").open("wb")
        # file_version (field 3): the word by which TensorBoard knows the format.
        self._record(_double(1, time.time()) + _bytes(3, b"brain.Event:2"))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Event {wall_time 1, step 2, summary 5 {value 1 {tag 1, simple_value 2}}}."""
        if values:
            summary = b"".join(
                _bytes(1, _bytes(1, tag.encode()) + _float(2, value)) for tag, value in values.items()
            )
            self._record(_double(1, time.time()) + _number(2, step) + _bytes(5, summary))
            self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _record(self, data: bytes) -> None:
        length = struct.pack("<Q", len(data))
        self._file.write(length + _masked(length) + data + _masked(data))


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", max(min(value, 3.4e38), -3.4e38))


@cache
def _table() -> Iterable[int]:
    def entry(byte: int) -> int:
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        return byte

    return tuple(entry(byte) for byte in range(256))


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC (RFC 3720, appendix B.4)."""
    table = tuple(_table())
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def _masked(data: bytes) -> bytes:
    """TFRecord's mask, so that a CRC of data which holds CRCs stays a good one."""
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
