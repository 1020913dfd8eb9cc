"""Page images: a page of a document drawn as PNG, kept in a cache that never grows beyond its room.

Given the home folder, the settings and the rooms; the drawing is done in a reader's child process, with
limits.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from pathlib import Path

from quinze.errors import InvalidRequestError
from quinze.paths import atomic_write
from quinze.service.rooms import Rooms
from quinze.service.settings import Settings

FOLDER = "cache/pages"
_MIN_WIDTH, _MAX_WIDTH = 16, 4096


class PageImages:
    def __init__(self, home: Path, settings: Settings, rooms: Rooms) -> None:
        self._folder = home / FOLDER
        self._settings, self._rooms = settings, rooms
        self._lock = threading.Lock()

    def get(self, path: Path, sha256: str, document_format: str, page: int, width: int | None) -> bytes:
        """PNG bytes. `sha256` names the content, so that a changed file is drawn anew."""
        width = self._settings.page_image_width if width is None else width
        if not _MIN_WIDTH <= width <= _MAX_WIDTH:
            raise InvalidRequestError(
                f"width is {width}; it must lie between {_MIN_WIDTH} and {_MAX_WIDTH}.", param="width"
            )
        kept = self._folder / f"{re.sub('[^0-9a-f]', '', sha256)}-{page}-{width}.png"
        with contextlib.suppress(OSError):
            image = kept.read_bytes()
            os.utime(kept)
            return image
        timeout = self._settings.page_render_timeout
        image = self._rooms.render_page(path, document_format, page, width, timeout=timeout)
        # A full disk costs the cache, not the page.
        with contextlib.suppress(OSError), self._lock:
            with atomic_write(kept) as file:
                file.write(image)
            self._make_room()
        return image

    def _make_room(self) -> None:
        found = [(path.stat(), path) for path in self._folder.glob("*.png")]
        size = sum(stat.st_size for stat, _ in found)
        for stat, path in sorted(found, key=lambda entry: entry[0].st_mtime_ns):
            if size <= self._settings.page_cache_bytes:
                return
            path.unlink()
            size -= stat.st_size
