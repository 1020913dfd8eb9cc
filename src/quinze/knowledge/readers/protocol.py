"""What Quinze and its reading children say to each other: length-prefixed MessagePack over two pipes.

A frame is four bytes of length (big endian) and one message. The pipes are descriptors of their own:
whatever a parser prints to its standard output cannot be mistaken for a message.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import msgspec

from quinze.knowledge.document import Document
from quinze.knowledge.readers.report import Limits

LARGEST = 512 << 20
_LENGTH = struct.Struct(">I")


class Ready(msgspec.Struct, tag=True):
    """The child's first word."""


class Read(msgspec.Struct, tag=True):
    path: bytes
    name: str
    limits: Limits


class Render(msgspec.Struct, tag=True):
    path: bytes
    name: str
    format: str
    page: int
    width: int


class Progress(msgspec.Struct, tag=True):
    page: int
    pages: int | None


class Done(msgspec.Struct, tag=True):
    document: Document


class Image(msgspec.Struct, tag=True):
    png: bytes


class Failed(msgspec.Struct, tag=True):
    """A QuinzeError, taken apart: `code` names its class."""

    code: str
    message: str
    hint: str


Request = Read | Render
Reply = Ready | Progress | Done | Image | Failed


class Frames:
    """Bytes in, in pieces of any size; whole messages out."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    @property
    def missing(self) -> int:
        """How many bytes more the message begun needs, as far as is known."""
        if len(self._bytes) < _LENGTH.size:
            return _LENGTH.size - len(self._bytes)
        return int(_LENGTH.unpack_from(self._bytes)[0]) + _LENGTH.size - len(self._bytes)

    def push(self, data: bytes) -> Iterator[bytes]:
        self._bytes += data
        while len(self._bytes) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._bytes)
            if length > LARGEST:
                raise ValueError(f"a message of {length:,} bytes")
            end = _LENGTH.size + length
            if len(self._bytes) < end:
                return
            message = bytes(memoryview(self._bytes)[_LENGTH.size : end])
            del self._bytes[:end]
            yield message


def write(descriptor: int, message: Request | Reply) -> None:
    data = msgspec.msgpack.encode(message)
    if len(data) > LARGEST:
        raise ValueError(f"a message of {len(data):,} bytes")
    view = memoryview(_LENGTH.pack(len(data)) + data)
    while view:
        view = view[os.write(descriptor, view) :]


def read(descriptor: int) -> bytes | None:
    """The next message, waited for; None when the other side has gone."""
    frames = Frames()
    wanted = _LENGTH.size
    while True:
        data = os.read(descriptor, wanted)
        if not data:
            return None
        for message in frames.push(data):
            return message
        wanted = frames.missing
