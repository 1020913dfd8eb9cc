"""Requests to a hub: the address checked first, redirects followed with care, refusals in words.

Given URLs; yields answers. A redirect never leads from https to http, nor into a private network (unless the
user's mirror is there itself), and never takes the token along to another host. Made of http.client:
it lets us connect to the very address that was checked and stop in the middle of a read, with no dependency.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import SplitResult, urljoin, urlsplit

from quinze.errors import HubError, InvalidRequestError, NotFoundError

MOST_REDIRECTS = 5

Resolve = Callable[[str, int], list[str]]


class Door:
    """Everything that goes to one endpoint."""

    def __init__(
        self, endpoint: str, token: str | None, idle_timeout: float, resolve: Resolve | None = None
    ) -> None:
        """idle_timeout: seconds without a byte. resolve: host and port to addresses."""
        self.endpoint = endpoint.rstrip("/")
        checked_parts(self.endpoint, "mirror")
        if token is not None and not re.fullmatch(r"[\x21-\x7e]{1,512}", token):
            raise InvalidRequestError("The token holds characters that no token has.", param="token")
        self._token, self._idle = token, idle_timeout
        self._resolve = resolve or addresses_of

    @contextlib.contextmanager
    def open(
        self,
        url: str,
        headers: Mapping[str, str],
        stop: threading.Event,
        what: str,
        *,
        partial: bool = False,
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer behind all redirects. 429 and 5xx raise AgainError, other refusals a QuinzeError."""
        own = origin(self.endpoint)
        for hop in range(MOST_REDIRECTS + 1):
            sent = {"User-Agent": "quinze", **headers}
            if self._token and origin(url) == own:
                sent["Authorization"] = f"Bearer {self._token}"
            connection = self._connect(url, redirected=hop > 0)
            with contextlib.closing(connection), Watch(connection, stop):
                target = urlsplit(url)
                path = (target.path or "/") + (f"?{target.query}" if target.query else "")
                connection.request("GET", path, headers=sent)
                response = connection.getresponse()
                if response.status in (301, 302, 303, 307, 308):
                    url = urljoin(url, response.headers.get("Location", ""))
                    continue
                if response.status in (200, *((206, 416) if partial else ())):
                    yield response
                    return
                _refuse(response, what, urlsplit(self.endpoint).netloc, bool(self._token))
        raise HubError(f"{what} is redirected more than {MOST_REDIRECTS} times.", hint="Try another mirror.")

    def _connect(self, url: str, *, redirected: bool) -> Pinned:
        parts = checked_parts(url, "url")
        host, secure = parts.hostname or "", parts.scheme == "https"
        if redirected and not secure and self.endpoint.startswith("https:"):
            raise HubError(f"The hub redirects from https to http, to {host}.", hint="Try another mirror.")
        port = parts.port or (443 if secure else 80)
        addresses = self._resolve(host, port)
        if redirected and not all(map(_public, addresses)):
            mirror = urlsplit(self.endpoint)
            known = set(self._resolve(mirror.hostname or "", port))
            if not set(addresses) <= known:
                raise HubError(
                    f"The hub redirects into a private network, to {host}.",
                    hint="Quinze does not follow. Try another mirror.",
                )
        return Pinned(host, port, addresses, self._idle, secure=secure)


class Pinned(http.client.HTTPConnection):
    """A connection to the very addresses that were checked, so that a second look-up cannot give others."""

    def __init__(self, host: str, port: int, addresses: list[str], timeout: float, *, secure: bool) -> None:
        super().__init__(host, port, timeout=timeout)
        self.default_port = 443 if secure else 80
        self._addresses, self._secure = addresses, secure
        self._wire: socket.socket | None = None

    def connect(self) -> None:
        for address in self._addresses:
            try:
                self.sock = socket.create_connection((address, self.port), self.timeout)
                break
            except OSError:
                if address == self._addresses[-1]:
                    raise
        if self._secure:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)
        # http.client lets its own go when the answer will be the last on it.
        self._wire = self.sock

    def cut(self) -> None:
        if self._wire is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._wire, socket.SHUT_RDWR)


class Watch:
    """While the block lasts, `stop` cuts the connection, even in the middle of a read."""

    def __init__(self, connection: Pinned, stop: threading.Event) -> None:
        self._connection, self._stop, self._done = connection, stop, threading.Event()

    def __enter__(self) -> None:
        threading.Thread(target=self._watch, name="quinze-hub-watch", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            if self._stop.is_set():
                self._connection.cut()


class AgainError(Exception):
    """Something that another attempt may mend, after so many seconds."""

    def __init__(self, what: str, after: float = 0.0) -> None:
        super().__init__(what)
        self.after = after


def _refuse(response: http.client.HTTPResponse, what: str, host: str, has_token: bool) -> None:
    status = response.status
    if status == 429 or status >= 500:
        after = response.headers.get("Retry-After", "")
        raise AgainError(f"HTTP {status}", float(after) if re.fullmatch(r"\d{1,6}", after) else 0.0)
    if status in (401, 403, 404):
        hint = "Check the name. Repositories that are not for everyone need a token of yours: HF_TOKEN=..."
        if has_token:
            hint = (
                "Check the name, and whether your token may read it (some ask you to accept a license first)."
            )
        raise NotFoundError(f"{host} has no {what}, or not for us (HTTP {status}).", hint=hint, param="model")
    raise HubError(f"{host} refused to send {what}: HTTP {status}.", hint="Try another mirror: --mirror URL.")


def checked_parts(url: str, param: str) -> SplitResult:
    """The parts of an address that may be opened. `param`: who named it; "url": a hub."""
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        right = False
    if not right or "@" in parts.netloc or re.search(r"[\x00-\x20\x7f\\]", url):
        kind = HubError if param == "url" else InvalidRequestError
        raise kind(
            f"{url[:200]!r} is no address that Quinze opens.",
            hint='It must begin with "https://" or "http://" and hold no user name.',
            param=param,
        )
    return parts


def origin(url: str) -> tuple[str, str, int]:
    """(scheme, host, port)"""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def addresses_of(host: str, port: int) -> list[str]:
    """Numbers that a name stands for."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _public(address: str) -> bool:
    """Whether it is an address of the open internet. Disguised ones (IPv4 in IPv6) are looked through."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.sixtofour or found.teredo or found in ipaddress.ip_network("64:ff9b::/96"):
            return False
        found = found.ipv4_mapped or found
    return found.is_global and not found.is_multicast
