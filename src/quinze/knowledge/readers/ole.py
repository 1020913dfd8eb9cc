"""What an OLE compound file holds: the names in its root tell old Office files and locked new ones apart.

Reads the directory alone, at most a few hundred kilobytes, and trusts none of its numbers.
"""

from __future__ import annotations

import struct
from pathlib import Path

MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
MOST_SECTORS = 2048


def top_names(path: Path) -> frozenset[str]:
    """Names of the streams and storages in the root of the file; as many as can be read of a broken one."""
    with path.open("rb") as file:
        header = file.read(512)
        if len(header) < 512:
            return frozenset()
        shift = struct.unpack_from("<H", header, 30)[0]
        if shift not in (9, 12):
            return frozenset()
        size = 1 << shift
        (sector,) = struct.unpack_from("<I", header, 48)
        table_sectors = struct.unpack_from("<109I", header, 76)

        def read_sector(index: int) -> bytes:
            file.seek((index + 1) << shift)
            return file.read(size)

        per_table = size // 4
        directory = bytearray()
        seen: set[int] = set()
        while sector < 0xFFFFFFFA and sector not in seen and len(seen) < MOST_SECTORS:
            seen.add(sector)
            directory += read_sector(sector)
            table, entry = divmod(sector, per_table)
            if table >= len(table_sectors) or table_sectors[table] >= 0xFFFFFFFA:
                break
            line = read_sector(table_sectors[table])
            if len(line) < size:
                break
            (sector,) = struct.unpack_from("<I", line, entry * 4)
    return _children(bytes(directory))


def _children(directory: bytes) -> frozenset[str]:
    entries = len(directory) // 128
    names: set[str] = set()
    if not entries:
        return frozenset()
    waiting = [struct.unpack_from("<I", directory, 76)[0]]
    seen: set[int] = set()
    while waiting:
        index = waiting.pop()
        if index >= entries or index in seen:
            continue
        seen.add(index)
        start = index * 128
        (length,) = struct.unpack_from("<H", directory, start + 64)
        raw = directory[start : start + max(0, min(length, 64) - 2)]
        names.add(raw.decode("utf-16-le", "replace"))
        waiting += struct.unpack_from("<II", directory, start + 68)
    return frozenset(names)
