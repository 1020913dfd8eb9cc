"""Between the event loop and the threads that do the work.

Quick calls (a list, a search) go through `in_thread`. A generation gets a thread of its own, which a client
that hangs up, or the end of the server, cancels: `cancellable` for one result, `Pump` for a stream of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Generic, ParamSpec, TypeVar

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.types import Receive

from quinze.errors import BusyError
from quinze.server.errors import ClientGoneError

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return await anyio.to_thread.run_sync(lambda: function(*args, **kwargs))


async def gone(receive: Receive, closing: asyncio.Event) -> bool:
    """Returns when the client hangs up (True) or the server closes (False)."""

    async def hung_up() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.create_task(hung_up()), asyncio.create_task(closing.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return not closing.is_set()
    finally:
        for task in tasks:
            task.cancel()


def shutting_down() -> BusyError:
    return BusyError("Quinze is shutting down.", hint="Start it again; nothing is lost.")


async def cancellable(request: Request, work: Callable[[threading.Event], T]) -> T:
    """The result of `work`, which is told by its event when nobody wants it any more."""

    def once(cancel: threading.Event) -> Iterator[T]:
        yield work(cancel)

    async with Pump(request, once) as pump:
        result = await pump.first(None)
    assert result is not None
    return result


class Pump(Generic[T]):
    """An iterator run in its own thread, its items awaited here. Leaving the block cancels and closes it."""

    def __init__(self, request: Request, work: Callable[[threading.Event], Iterator[T]]) -> None:
        self.cancel = threading.Event()
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[T | BaseException | None] = asyncio.Queue()
        self._kept: list[T | BaseException | None] = []
        threading.Thread(target=self._run, args=(work,), name="quinze-request", daemon=True).start()

    async def first(self, patience: float | None) -> T | None:
        """The first item, kept for the stream too; its error is raised, so that it can still become a status.

        None after `patience` seconds: something is under way, and the stream may begin.
        """
        closing: asyncio.Event = self._request.app.state.closing
        item = asyncio.create_task(self._items.get())
        leave = asyncio.create_task(gone(self._request.receive, closing))
        try:
            await asyncio.wait({item, leave}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if item.done():
                self._kept.append(item.result())
                found = self._kept[0]
                if isinstance(found, BaseException):
                    raise found
                return found
            if leave.done():
                raise ClientGoneError if leave.result() else shutting_down()
            return None
        finally:
            item.cancel()
            leave.cancel()

    async def items(self) -> AsyncIterator[T]:
        while True:
            item = self._kept.pop(0) if self._kept else await self._items.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        self.cancel.set()

    async def __aenter__(self) -> Pump[T]:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _run(self, work: Callable[[threading.Event], Iterator[T]]) -> None:
        try:
            items = work(self.cancel)
            try:
                for item in items:
                    if self.cancel.is_set():
                        break
                    self._put(item)
            finally:
                close = getattr(items, "close", None)
                if close is not None:
                    close()
        except BaseException as error:
            self._put(error)
        else:
            self._put(None)

    def _put(self, item: T | BaseException | None) -> None:
        # The loop may have ended before us: then nobody waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)
