"""Packed weights: the quantized matrices of a model with 16 rows interleaved, in a mapped file of their own.

Given a Model; returns the matrices as the decoder takes them, or none where packing brings nothing or cannot
be had: the model then runs from its own file. The first load writes the file, at the speed of the page cache,
and uses it at once; it gets its name only when it is whole on disk. csrc/packed.h draws the layout.

    .model.gguf.packed = head | matrices, each at a multiple of 64 | SHA-256 of the head
    head               = "QZPACKED" | length u32 | JSON: layout, identity of the source, every matrix | zeros

The head that belongs to a model is known before the file is opened, and is compared byte by byte. So nothing
in the file is parsed, and one that is torn, foreign, older than its source or of another layout is made anew.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from quinze import native
from quinze.engine.packing import files_of, packed_paths, part_of
from quinze.formats.checkpoint import Bytes, Tensor
from quinze.models.weights import Model
from quinze.paths import sync_folder

LAYOUT = 1
"""Of csrc/packed.h; another makes every packed file stale."""
LEAST_BYTES = 16 * 2**20
"""Of quantized matrices: below it a processor's caches hold them anyway."""
SPARE_BYTES = 2**30
"""That a disk must have left over when the file is written."""
PANEL_ROWS = 16
PIECE_BYTES = 2 * 2**20
"""That one thread packs at a time."""
ALIGNMENT = 64
MAGIC = b"QZPACKED"
IDENTITY_BYTES = 2**20
"""Of the source's beginning, that are hashed: all of its head, or most of it."""

Packed = Mapping[str, native.Weight]
"""Name -> (type, rows, cols, bytes), for the decoder in place of the file's own."""
Progress = Callable[[int, int], None]
"""Bytes written, and all."""


@dataclass(frozen=True, slots=True)
class _Planned:
    tensor: Tensor
    type: int
    offset: int
    size: int


def packed_weights(model: Model, threads: int | None = None, progress: Progress | None = None) -> Packed:
    """The packed matrices, from the file that an earlier load left, or from one that is written now.

    Empty where there are few bytes to gain by, no AVX2, no room on the disk, no folder that may be written
    to, or another process that is writing the same file: the model then runs from its own.
    """
    plan = _plan(model)
    if not plan or sum(p.size for p in plan) < LEAST_BYTES or not native.cpu_has_avx2():
        return {}
    head = _head(model.checkpoint.path, plan)
    if head is None:
        return {}
    places = packed_paths(model.checkpoint.path)
    for place in places:
        with contextlib.suppress(OSError):
            return _open(place, head, plan)
    for place in places:
        try:
            return _make(place, head, plan, threads or len(os.sched_getaffinity(0)), progress or _silent)
        except BlockingIOError:
            return {}
        except OSError:
            continue
    return {}


def packed_in_memory(model: Model) -> Packed:
    """The same without a file, for measuring and for tests."""
    return {p.tensor.name: _weight(p, _pack(p.tensor, 0, _panels(p.tensor))) for p in _plan(model)}


def _silent(done: int, total: int) -> None:
    pass


# --- what is packed


def _plan(model: Model) -> list[_Planned]:
    """Every quantized matrix that is multiplied with. An embedding of its own is only looked up in."""
    if model.checkpoint.format != "gguf":
        return []
    plan: list[_Planned] = []
    offset = 0
    for name, tensor in model.tensors.items():
        looked_up = name == "model.embed_tokens.weight" and "lm_head.weight" in model.tensors
        packed = native.packed_type(int(tensor.type)) if len(tensor.shape) == 2 and not looked_up else None
        if packed is None:
            continue
        size = native.packed_size(packed, *tensor.shape)
        plan.append(_Planned(_named(tensor, name), packed, offset, size))
        offset += -(-size // ALIGNMENT) * ALIGNMENT
    return plan


def _named(tensor: Tensor, name: str) -> Tensor:
    """Under the name that the decoder asks for: a fused tensor's parts have only one in the file."""
    return Tensor(name, tensor.type, tensor.shape, tensor.data)


def _head(source: Path, plan: list[_Planned]) -> bytes | None:
    """None where the source cannot be told from another."""
    try:
        with source.open("rb") as file:
            beginning = hashlib.sha256(file.read(IDENTITY_BYTES)).hexdigest()
        found = [part.stat() for part in files_of(source)]
    except OSError:
        return None
    told = {
        "layout": LAYOUT,
        "source": {
            "size": [part.st_size for part in found],
            "mtime_ns": [part.st_mtime_ns for part in found],
            "beginning": beginning,
        },
        "matrices": [[p.tensor.name, p.type, *p.tensor.shape, p.offset] for p in plan],
    }
    text = msgspec.json.encode(told)
    head = MAGIC + struct.pack("<I", len(text)) + text
    return head + bytes(-len(head) % mmap.PAGESIZE)


def _panels(tensor: Tensor) -> int:
    return -(-tensor.shape[0] // PANEL_ROWS)


def _pack(tensor: Tensor, first: int, last: int) -> Bytes:
    rows, cols = tensor.shape
    return native.pack(int(tensor.type), tensor.data, rows, cols, first, last)


def _weight(planned: _Planned, data: Bytes) -> native.Weight:
    rows, cols = planned.tensor.shape
    return planned.type, rows, cols, data


# --- reading


def _open(path: Path, head: bytes, plan: list[_Planned]) -> Packed:
    """Raises OSError where there is none, or not the right one."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size != _size(head, plan) or file.read(len(head)) != head:
            raise FileNotFoundError(errno.ENOENT, "not of this model", str(path))
        file.seek(-hashlib.sha256().digest_size, os.SEEK_END)
        if file.read() != hashlib.sha256(head).digest():
            raise FileNotFoundError(errno.ENOENT, "torn", str(path))
        return _mapped(file, head, plan)


def _size(head: bytes, plan: list[_Planned]) -> int:
    return len(head) + plan[-1].offset + plan[-1].size + hashlib.sha256().digest_size


def _mapped(file: BinaryIO, head: bytes, plan: list[_Planned]) -> Packed:
    data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    begin = len(head)
    return {p.tensor.name: _weight(p, data[begin + p.offset : begin + p.offset + p.size]) for p in plan}


# --- writing


def _make(place: Path, head: bytes, plan: list[_Planned], threads: int, progress: Progress) -> Packed:
    """Written and mapped; put onto the disk and named behind the caller's back: disks take their time."""
    place.parent.mkdir(parents=True, exist_ok=True)
    total = _size(head, plan)
    room = os.statvfs(place.parent)
    if room.f_bavail * room.f_frsize < total + SPARE_BYTES:
        raise OSError(errno.ENOSPC, "no room for packed weights", str(place))
    file = _locked(part_of(place))
    try:
        with contextlib.ExitStack() as undo:
            undo.callback(file.close)
            undo.callback(part_of(place).unlink, missing_ok=True)
            os.truncate(file.fileno(), 0)
            _write(file.fileno(), head, plan, threads, progress)
            mapped = _mapped(file, head, plan)
            undo.pop_all()
    finally:
        _forget(plan)
    # Not a daemon: a process that ends early still leaves the file behind, or each would pack again.
    threading.Thread(target=_settle, args=(file, place), name="quinze-packed").start()
    return mapped


def _locked(part: Path) -> BinaryIO:
    """The file that is being written, for us alone. What a killed process left in it is written over.

    Raises BlockingIOError where another process is at work.
    """
    while True:
        file = os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held the lock may have given the file its name meanwhile, or deleted it.
            if part.exists() and part.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
            file.close()
        except OSError:
            file.close()
            raise


def _write(descriptor: int, head: bytes, plan: list[_Planned], threads: int, progress: Progress) -> None:
    pieces = list(_pieces(plan))
    total, done = sum(size for *_, size in pieces), 0

    def one(piece: tuple[_Planned, int, int, int]) -> int:
        planned, first, last, size = piece
        each = planned.size // _panels(planned.tensor)
        _write_all(descriptor, _pack(planned.tensor, first, last), len(head) + planned.offset + first * each)
        return size

    with ThreadPoolExecutor(max(1, threads)) as pool:
        for size in pool.map(one, pieces):
            done += size
            progress(done, total)
    _write_all(descriptor, np.frombuffer(head, np.uint8), 0)
    _write_all(descriptor, np.frombuffer(hashlib.sha256(head).digest(), np.uint8), _size(head, plan) - 32)


def _pieces(plan: list[_Planned]) -> Iterator[tuple[_Planned, int, int, int]]:
    """(matrix, first panel, last, bytes)"""
    for planned in plan:
        panels = _panels(planned.tensor)
        each = planned.size // panels
        step = max(1, PIECE_BYTES // each)
        for first in range(0, panels, step):
            last = min(panels, first + step)
            yield planned, first, last, (last - first) * each


def _write_all(descriptor: int, data: Bytes, offset: int) -> None:
    view = data.data
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _settle(file: BinaryIO, place: Path) -> None:
    """Where the disk refuses, the next load finds no packed file and writes it again."""
    part = part_of(place)
    with file, contextlib.suppress(OSError):
        try:
            os.fsync(file.fileno())
            part.replace(place)
            sync_folder(place.parent)
        except OSError:
            part.unlink(missing_ok=True)


def _forget(plan: list[_Planned]) -> None:
    """The source's pages leave the process: from here on the packed ones are read."""
    seen: set[int] = set()
    for planned in plan:
        owner: Any = planned.tensor.data
        while isinstance(owner, np.ndarray):
            owner = owner.base
        owner = owner.obj if isinstance(owner, memoryview) else owner
        if isinstance(owner, mmap.mmap) and id(owner) not in seen:
            seen.add(id(owner))
            owner.madvise(mmap.MADV_DONTNEED)
