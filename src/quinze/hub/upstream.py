"""Requests to a server that runs models and speaks OpenAI's HTTP: vLLM, llama.cpp, SGLang, Ollama, OpenAI.

Given its address and, where it wants one, a key; returns JSON, or the events of a stream. The key goes to
this very address: no redirect is followed. What the server says against a request becomes a QuinzeError that
names the server and never holds the key. Knows nothing of messages or models.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
from collections.abc import Generator, Iterator, Mapping
from typing import Any, NoReturn
from urllib.parse import urlsplit

from quinze.errors import (
    BusyError,
    ContextLengthError,
    InvalidRequestError,
    ModelNotFoundError,
    QuinzeError,
    TooLargeError,
    UpstreamError,
)
from quinze.hub.connection import Pinned, Resolve, Watch, addresses_of, checked_parts

MOST_JSON = 64 * 2**20
MOST_LINE = 8 * 2**20
"""Bytes of one event."""
CONNECT = 10.0
"""Seconds in which a server must take the connection."""
_MOST_MESSAGE = 400
"""Characters of the server's own words that an error repeats."""
_TOO_LONG = re.compile(r"context[_ ](length|window|size)|maximum context|too many tokens|max_model_len", re.I)

Event = dict[str, Any]


class Upstream:
    """One server. Requests may be under way in several threads; each has a connection of its own."""

    def __init__(
        self,
        address: str,
        *,
        key: str | None = None,
        idle_timeout: float = 300.0,
        resolve: Resolve | None = None,
    ) -> None:
        """address: with its path, such as http://gpu:8000/v1. idle_timeout: seconds without a byte."""
        self.address = address.rstrip("/")
        parts = checked_parts(self.address, "upstream")
        if parts.query or parts.fragment:
            raise InvalidRequestError(
                f"{address[:200]!r} has a query or a fragment.", hint="Give it up to /v1.", param="upstream"
            )
        if key is not None and not re.fullmatch(r"[\x21-\x7e]{1,4096}", key):
            raise InvalidRequestError("The key holds characters that no key has.", param="key")
        self.server = parts.netloc
        """Host and port, as errors name it."""
        self.root = f"{parts.scheme}://{parts.netloc}{parts.path.removesuffix('/v1')}"
        """Where the routes lie that are not OpenAI's."""
        self._key, self._idle, self._resolve = key, idle_timeout, resolve or addresses_of

    def get(self, path: str, stop: threading.Event | None = None, *, root: bool = False) -> Any:
        """The JSON at a path of the address, or of `root`."""
        with self._request("GET", path, None, stop, root=root) as response:
            return self._json(response)

    def post(
        self, path: str, body: Mapping[str, Any], stop: threading.Event | None = None, *, root: bool = False
    ) -> Any:
        """The JSON that answers `body`."""
        with self._request("POST", path, body, stop, root=root) as response:
            return self._json(response)

    def stream(
        self, path: str, body: Mapping[str, Any], stop: threading.Event | None = None
    ) -> Generator[Event, None, None]:
        """The events that answer `body`, up to [DONE] or the end; one that holds an error raises.

        A server that cannot stream answers whole: that is one event. Closing the iterator, or `stop`, closes
        the connection, and a server worth its name then stops computing.
        """
        with self._request("POST", path, body, stop) as response:
            if "json" in response.headers.get("Content-Type", ""):
                yield self._checked(self._json(response))
                return
            for data in self._data(response):
                if data == "[DONE]":
                    return
                try:
                    event = json.loads(data)
                except (ValueError, RecursionError) as error:
                    raise self._garbage() from error
                yield self._checked(event)

    @contextlib.contextmanager
    def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        stop: threading.Event | None,
        *,
        root: bool = False,
    ) -> Iterator[http.client.HTTPResponse]:
        url = (self.root if root else self.address) + path
        target, stop = urlsplit(url), stop or threading.Event()
        headers = {"User-Agent": "quinze", "Accept": "application/json, text/event-stream"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        data, waiting = None, min(CONNECT, self._idle)
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
        try:
            with contextlib.ExitStack() as stack:
                connection = stack.enter_context(contextlib.closing(self._connection()))
                stack.enter_context(Watch(connection, stop))
                connection.connect()
                # From here on it may think; a prompt of 100,000 tokens takes its time.
                waiting = self._idle
                connection.sock.settimeout(waiting)
                connection.request(method, target.path or "/", data, headers)
                response = connection.getresponse()
                if response.status != 200:
                    self._refuse(response)
                yield response
        except TimeoutError as error:
            raise UpstreamError(
                f"{self.server} has been silent for {waiting:g} seconds.",
                hint="It may be loading or overloaded. The setting upstream_timeout says how long to wait.",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            if stop.is_set():
                raise BusyError(f"The request to {self.server} was cancelled.", hint="Ask again.") from error
            reason = str(error) or type(error).__name__
            raise UpstreamError(
                f"{self.server} cannot be reached: {reason[:200]}.", hint="Is it running, at this address?"
            ) from error

    def _connection(self) -> Pinned:
        parts = urlsplit(self.address)
        host, secure = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        return Pinned(host, port, self._resolve(host, port), min(CONNECT, self._idle), secure=secure)

    def _data(self, response: http.client.HTTPResponse) -> Iterator[str]:
        """What the `data` lines of each event hold (WHATWG's server-sent events), without comments."""
        lines: list[str] = []
        while line := response.readline(MOST_LINE + 1):
            if len(line) > MOST_LINE:
                raise TooLargeError(f"{self.server} sent an event of more than {MOST_LINE:,} bytes.")
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            if text.startswith("data:"):
                lines.append(text[5:].removeprefix(" "))
            elif not text and lines:
                yield "\n".join(lines)
                lines = []
        if lines:
            yield "\n".join(lines)

    def _json(self, response: http.client.HTTPResponse) -> Any:
        body = response.read(MOST_JSON + 1)
        if len(body) > MOST_JSON:
            raise TooLargeError(f"{self.server} answered with more than {MOST_JSON:,} bytes.")
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise self._garbage() from error

    def _garbage(self) -> UpstreamError:
        return UpstreamError(
            f"{self.server} answered something that is no JSON.",
            hint="Is it a server with OpenAI's HTTP? Its address usually ends with /v1.",
        )

    def _checked(self, event: Any) -> Event:
        if not isinstance(event, dict):
            raise self._garbage()
        if event.get("error"):
            raise self._said(500, self._message(event), event)
        return event

    def _refuse(self, response: http.client.HTTPResponse) -> NoReturn:
        """What an answer other than 200 means."""
        status = response.status
        raw = response.read(65_536).decode("utf-8", "replace")
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            body = None
        message = self._message(body if isinstance(body, dict) else {})
        if status == 429 or status == 503:
            after = response.headers.get("Retry-After", "")
            seconds = min(3600.0, float(after)) if re.fullmatch(r"\d{1,6}(\.\d+)?", after) else None
            raise BusyError(
                f"{self.server} is busy (HTTP {status}){message}.",
                hint="Try again in a moment." if seconds is None else f"Try again in {seconds:g} seconds.",
                retry_after=seconds,
            )
        if 300 <= status < 400:
            raise UpstreamError(
                f"{self.server} sends us elsewhere (HTTP {status}), which Quinze does not follow.",
                hint="Give the address that it means: quinze add NAME --upstream URL.",
            )
        raise self._said(status, message, body if isinstance(body, dict) else {})

    def _said(self, status: int, message: str, body: Mapping[str, Any]) -> QuinzeError:
        told = body.get("error")
        code = told.get("code") if isinstance(told, dict) else None
        code = code if isinstance(code, int) and 400 <= code < 600 else status
        if status in (401, 403):
            hint = (
                "Is the key right, and not expired?" if self._key else "It wants a key: --key-env VARIABLE."
            )
            return UpstreamError(f"{self.server} refuses us (HTTP {status}){message}.", hint=hint)
        if status == 404:
            return ModelNotFoundError(
                f"{self.server} has no such model or route (HTTP 404){message}.",
                hint="Does the address end with /v1? `quinze show NAME` tells which model is asked for.",
                param="model",
            )
        if _TOO_LONG.search(message) or (
            isinstance(told, dict) and "context_length" in str(told.get("code"))
        ):
            return ContextLengthError(
                f"The prompt is too long for {self.server}{message}.",
                hint='Shorten it, or choose context_overflow "drop_oldest" or "keep_ends".',
                param="messages",
            )
        if code in (400, 413, 422):
            return InvalidRequestError(f"{self.server} refuses the request (HTTP {code}){message}.")
        return UpstreamError(
            f"{self.server} failed (HTTP {code}){message}.", hint="Its own log may tell more."
        )

    def _message(self, body: Mapping[str, Any]) -> str:
        """The server's own words, on one line, as the end of a sentence; "" when it has none."""
        found: Any = body.get("error", body.get("message", body.get("detail")))
        if isinstance(found, dict):
            found = found.get("message")
        if not isinstance(found, str) or not found.strip():
            return ""
        words = " ".join(found.split())
        if self._key is not None:
            words = words.replace(self._key, "***")
        return f": {words[:_MOST_MESSAGE].rstrip('.')}"
