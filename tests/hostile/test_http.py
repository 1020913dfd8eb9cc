"""Hostile requests: forged Hosts and Origins, lying lengths, slow and broken bodies, names that are paths.

Sent over raw sockets where a well-behaved client would not let them out. Each must get a clear refusal in
the one error shape, must not reach the inside, and must leave the server answering.
"""

from __future__ import annotations

import concurrent.futures
import json
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from quinze.errors import InvalidRequestError
from quinze.server.run import LocalServer
from quinze.service.service import Service
from quinze.service.settings import MIB, Settings

ALLOWED = "http://localhost:5173"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    home = tmp_path_factory.mktemp("server") / "home"
    home.mkdir()
    service = Service(
        home,
        Settings(port=0, allowed_origins=(ALLOWED,), allowed_hosts=("quinze.local:1515",),
                 body_timeout=0.5, max_body_bytes=MIB, max_upload_bytes=2 * MIB),
    )  # fmt: skip
    server = LocalServer(service)
    thread = threading.Thread(target=lambda: server.run(sockets=[server.socket]), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server
    server.stop()
    thread.join(20)
    service.close()


@pytest.fixture(scope="module")
def client(server: LocalServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture
def http(client: httpx.Client) -> Iterator[httpx.Client]:
    """A client; after its test the server must still be well."""
    yield client
    assert client.get("/health").json()["status"] == "ok"


def raw(server: LocalServer, *pieces: bytes, pause: float = 0.0) -> tuple[int, dict[str, str], bytes]:
    """Send bytes as they are; the status, headers and body that come back. Status 0: hung up at once."""
    with socket.create_connection(server.socket.getsockname()[:2], timeout=15) as connection:
        for piece in pieces:
            try:
                connection.sendall(piece)
            except OSError:
                break
            time.sleep(pause)
        answer = b""
        while b"\r\n\r\n" not in answer or len(answer) < _whole(answer):
            try:
                more = connection.recv(65536)
            except ConnectionResetError:
                break
            if not more:
                break
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    return int(lines[0].split()[1]) if lines[0] else 0, headers, body


def _whole(answer: bytes) -> int:
    head = answer.partition(b"\r\n\r\n")[0].lower()
    length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return len(head) + 4 + int(length or 0)


def head(server: LocalServer, start: str, *lines: str, host: str | None = None) -> bytes:
    """A request's head, as it is written here."""
    port = server.socket.getsockname()[1]
    return "\r\n".join([start, f"Host: {host or f'127.0.0.1:{port}'}", *lines, "", ""]).encode("latin-1")


def post(http: httpx.Client, path: str, body: bytes | str) -> httpx.Response:
    return http.post(path, content=body, headers={"content-type": "application/json"})


def refused(reply: httpx.Response, status: int) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    error: dict[str, Any] = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code", "hint"}
    assert error["message"]
    return error


# --- who asks


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:1515", "127.0.0.1.evil.example", "localhost.evil.example", "quinze.local",
     "127.0.0.2", "[::2]", "user@127.0.0.1", "127.0.0.1:80:80", "127.0.0.1:abc", "", "localhost/../x",
     "0.0.0.0", "2130706433", "127.1"],
)  # fmt: skip
def test_a_foreign_host_is_refused(server: LocalServer, host: str) -> None:
    status, _, body = raw(server, head(server, "GET /api/status HTTP/1.1", host=host or " "))
    assert status in {400, 403}
    assert b"home" not in body


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "127.0.0.1", "[::1]:1515", "quinze.local:1515"]
)
def test_our_own_hosts_are_served(server: LocalServer, host: str) -> None:
    assert raw(server, head(server, "GET /health HTTP/1.1", host=host))[0] == 200


def test_two_hosts_or_none_are_refused(server: LocalServer) -> None:
    assert raw(server, head(server, "GET /health HTTP/1.1", "Host: evil.example"))[0] in {400, 403}
    assert raw(server, b"GET /health HTTP/1.1\r\n\r\n")[0] in {400, 403}
    assert raw(server, b"GET /health HTTP/1.0\r\n\r\n")[0] in {400, 403}


@pytest.mark.parametrize(
    "origin",
    ["null", "http://evil.example", "https://localhost.evil.example", "http://localhost:5174", "file://",
     "chrome-extension://abc", "http://localhost:5173.evil.example", ""],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_a_foreign_origin_is_refused(http: httpx.Client, origin: str, method: str) -> None:
    reply = http.request(method, "/api/knowledge", headers={"origin": origin})
    assert refused(reply, 403)["code"] == "forbidden_origin"
    assert "access-control-allow-origin" not in reply.headers


def test_a_page_of_our_own_may_ask(http: httpx.Client) -> None:
    reply = http.get("/api/status", headers={"origin": str(http.base_url).rstrip("/")})
    assert reply.status_code == 200
    assert "access-control-allow-origin" not in reply.headers


def test_an_allowed_origin_is_told_so_and_no_other(http: httpx.Client) -> None:
    asked = {"origin": ALLOWED, "access-control-request-method": "POST",
             "access-control-request-headers": "content-type, x-stainless-os"}  # fmt: skip
    preflight = http.options("/v1/chat/completions", headers=asked)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == ALLOWED
    assert "x-stainless-os" in preflight.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in preflight.headers
    assert (
        http.get("/api/status", headers={"origin": ALLOWED}).headers["access-control-allow-origin"] == ALLOWED
    )


def test_an_image_or_script_of_another_site_gets_nothing(http: httpx.Client) -> None:
    asked = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    refused(http.get("/api/status", headers=asked), 403)
    assert http.get("/", headers={**asked, "sec-fetch-mode": "navigate"}).status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/knowledge", "/api/ask", "/api/models"])
def test_a_body_that_a_web_form_can_send_is_refused(http: httpx.Client, path: str, kind: str) -> None:
    reply = http.post(path, content=b'{"name": "x"}', headers={"content-type": kind} if kind else {})
    refused(reply, 415)
    assert http.get("/api/knowledge").json() == {"knowledge_bases": []}


@pytest.mark.parametrize("path", ["/", "/health", "/api/status", "/nothing.js", "/v1/models/none"])
def test_every_answer_carries_the_protecting_headers(http: httpx.Client, path: str) -> None:
    headers = http.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["x-request-id"].startswith("req_")
    assert "server" not in headers


def test_a_websocket_is_not_opened(server: LocalServer) -> None:
    asked = head(server, "GET /api/jobs HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade",
                 "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version: 13")  # fmt: skip
    assert raw(server, asked)[0] != 101


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.15", "::", "example.org", "8.8.8.8", ""])
def test_it_does_not_start_on_an_address_that_others_reach(tmp_path: Path, host: str) -> None:
    with pytest.raises(InvalidRequestError, match="does not listen"):
        LocalServer(Service(tmp_path, Settings(host=host, port=0)))


# --- bodies


def test_a_hundred_megabytes_of_json_are_refused_unread(server: LocalServer) -> None:
    status, _, body = raw(
        server,
        head(server, "POST /api/ask HTTP/1.1", "Content-Type: application/json", "Content-Length: 104857600"),
    )
    assert status == 413
    assert json.loads(body)["error"]["code"] == "too_large"


def test_a_body_without_a_length_is_counted_as_it_comes(server: LocalServer) -> None:
    start = head(
        server, "POST /api/ask HTTP/1.1", "Content-Type: application/json", "Transfer-Encoding: chunked"
    )
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    status, _, _ = raw(server, start, *[piece] * 40)
    assert status in {413, 0}


def test_more_body_than_the_length_says_is_not_read(http: httpx.Client, server: LocalServer) -> None:
    start = head(
        server, "POST /api/knowledge HTTP/1.1", "Content-Type: application/json", "Content-Length: 2"
    )
    status, _, body = raw(server, start + b"{}" + b"GARBAGE")
    assert status == 400
    assert json.loads(body)["error"]["param"] == "name"


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "99999999999999999999999", "5, 6", "+5"])
def test_an_impossible_length_is_refused(http: httpx.Client, server: LocalServer, length: str) -> None:
    start = head(
        server, "POST /api/ask HTTP/1.1", "Content-Type: application/json", f"Content-Length: {length}"
    )
    assert raw(server, start + b"{}")[0] in {400, 413}


@pytest.mark.parametrize(
    ("path", "kind"), [("/api/ask", "application/json"), ("/v1/chat/completions", "application/json")]
)
def test_a_body_that_stops_coming_is_given_up(server: LocalServer, path: str, kind: str) -> None:
    start = head(server, f"POST {path} HTTP/1.1", f"Content-Type: {kind}", "Content-Length: 1000")
    status, _, body = raw(server, start + b'{"model')
    assert status == 408
    assert b"7 bytes" in body


def test_an_upload_that_stops_coming_leaves_nothing(http: httpx.Client, server: LocalServer) -> None:
    base = server.app.state.service.home / "knowledge" / "slow"
    made = http.post("/api/knowledge", json={"name": "slow"})
    assert made.status_code == 201
    start = head(server, "POST /api/knowledge/slow/documents?name=a.txt HTTP/1.1", "Content-Length: 1000")
    assert raw(server, start + b"half")[0] == 408
    assert not list(base.rglob("*.part"))
    assert http.get("/api/knowledge/slow/documents").json() == {"documents": []}
    assert http.delete("/api/knowledge/slow").status_code == 204


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nul", b"[]", b'"x"', b'{"name": "x"} {}', b"\xef\xbb\xbf{}", b'{"name": NaN}',
     b'{"name": "\xff\xfe"}', b'{"name": "x", "unknown": "\xff"}', rb'{"name": "\ud800"}',
     rb'{"name": "a\udc00b"}', b"[" * 100_000, b'{"x":' * 50_000 + b"1" + b"}" * 50_000,
     b'{"name": "x", "y": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"],
)  # fmt: skip
def test_broken_json_is_refused(http: httpx.Client, body: bytes) -> None:
    error = refused(post(http, "/api/knowledge", body), 400)
    assert "Traceback" not in json.dumps(error)
    assert http.get("/api/knowledge").json() == {"knowledge_bases": []}


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", "NaN"), ("temperature", "-Infinity"), ("temperature", "1e999"), ("temperature", "-0.1"),
     ("temperature", "1e300"), ("top_p", "-1"), ("top_p", "2"), ("top_k", "-5"),
     ("top_k", "99999999999999999999"),
     ("max_tokens", "-1"), ("max_tokens", "0"), ("max_tokens", "1e9"), ("max_tokens", "18446744073709551616"),
     ("min_p", "7"), ("seed", "1e40"), ("seed", "-170141183460469231731687303715884105728"),
     ("repetition_penalty", "0"), ("n", "-3"), ("stream", '"yes"'), ("stop", '{"a": 1}'), ("stop", "[1]")],
)  # fmt: skip
def test_numbers_out_of_their_range_are_refused_by_name(http: httpx.Client, field: str, value: str) -> None:
    body = f'{{"model": "none", "messages": [{{"role": "user", "content": "hi"}}], "{field}": {value}}}'
    error = refused(post(http, "/v1/chat/completions", body), 400)
    assert field in (error["param"] or "") or "JSON" in error["message"]


@pytest.mark.parametrize("k", ["0", "-1", "101", "1e2", "99999999999999999999", "true"])
def test_k_has_a_range(http: httpx.Client, k: str) -> None:
    refused(post(http, "/api/ask", f'{{"knowledge_base": "none", "question": "?", "k": {k}}}'), 400)


# --- names and paths

NAMES = ["../x", "..", ".", "../../etc/passwd", "/etc/passwd", "C:\\x", "\\\\host\\share", "a/b", "a\\b",
         "a\x00b",
         "a\r\nSet-Cookie: x=1", "x" * 300, "字" * 100, "-rf", ".hidden", " ", "", " a", "a\u202eb",
         "a\u200bb",
         "con|", "a?b", "a*b", "a:b", "\ufeff", "\ue000"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_knowledge_base_cannot_bear_a_dangerous_name(
    http: httpx.Client, server: LocalServer, name: str
) -> None:
    assert refused(http.post("/api/knowledge", json={"name": name}), 400)["param"] == "name"
    home: Path = server.app.state.service.home
    assert [path.name for path in home.parent.iterdir()] == [home.name]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_dangerous_name_in_a_url_finds_nothing(http: httpx.Client, name: str) -> None:
    quoted = urllib.parse.quote(name, safe="")
    for path in (f"/api/knowledge/{quoted}/documents", f"/api/models/{quoted}", f"/v1/models/{quoted}"):
        status, _, body = raw_get(http, path)
        assert status in {307, 308, 404} or (name in {"", "."} and status == 200), (path, status, body)
        assert b"root:" not in body


def raw_get(http: httpx.Client, path: str) -> tuple[int, dict[str, str], bytes]:
    """httpx would tidy the path."""
    port = http.base_url.port
    with socket.create_connection(("127.0.0.1", port), timeout=15) as connection:
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b""
        while more := connection.recv(65536):
            answer += more
    start, _, body = answer.partition(b"\r\n\r\n")
    lines = start.decode("latin-1").split("\r\n")
    return int(lines[0].split()[1]), dict(line.lower().split(": ", 1) for line in lines[1:]), body


@pytest.mark.parametrize(
    "name",
    ["../x.txt", "/etc/passwd", "a/../b.txt", "a//b.txt", "C:\\x.txt", "a\\b.txt", "a\x00.txt", "a\nb.txt",
     "x" * 300 + ".txt", "", "..", "\u202etxt.exe"],
)  # fmt: skip
def test_an_upload_cannot_bear_a_dangerous_name(http: httpx.Client, name: str) -> None:
    made = http.post("/api/knowledge", json={"name": "uploads"})
    assert made.status_code in {201, 409}
    reply = http.post("/api/knowledge/uploads/documents", params={"name": name}, content=b"text")
    assert refused(reply, 400)["param"] == "name"


def test_too_large_an_upload_is_refused_and_leaves_nothing(http: httpx.Client, server: LocalServer) -> None:
    http.post("/api/knowledge", json={"name": "uploads"})
    big = b"x" * (2 * MIB + 1)
    reply = http.post("/api/knowledge/uploads/documents", params={"name": "big.txt"}, content=big)
    refused(reply, 413)

    def pieces() -> Iterator[bytes]:
        for _ in range(5):
            yield b"x" * MIB

    try:
        reply = http.post("/api/knowledge/uploads/documents", params={"name": "big.txt"}, content=pieces())
        refused(reply, 413)
    except httpx.TransportError:
        pass  # it hung up while we were still sending
    base: Path = server.app.state.service.home / "knowledge" / "uploads"
    assert not list(base.rglob("*.part"))


@pytest.mark.parametrize(
    "path",
    ["/../pyproject.toml", "/..%2f..%2fapp.py", "/%2e%2e/app.py", "/....//app.py", "/assets/..%5c..%5capp.py",
     "/app.py", "/static/../app.py", "/%00", "/a%00.js", "//etc/passwd", "/%2fetc%2fpasswd", "/.env",
     "/" + "a" * 5000],
)  # fmt: skip
def test_no_file_beside_the_page_is_served(http: httpx.Client, path: str) -> None:
    status, _, body = raw_get(http, path)
    assert status in {200, 404}
    assert b"def create_app" not in body
    assert b"root:" not in body
    assert b"scikit" not in body


@pytest.mark.parametrize("number", ["-1", "0x1", "1e3", "9" * 30, "9" * 5000, "abc", "１"])
def test_impossible_document_numbers_find_nothing(http: httpx.Client, number: str) -> None:
    http.post("/api/knowledge", json={"name": "uploads"})
    for rest in ("", "/blocks", "/pages/1.png", "/file"):
        refused(http.get(f"/api/knowledge/uploads/documents/{number}{rest}"), 404)


@pytest.mark.parametrize("path", ["/etc/shadow-that-is-not", "\x00", "", "nowhere/at/all", "~nobody-here/x"])
def test_a_path_that_is_not_there_is_refused(http: httpx.Client, path: str) -> None:
    http.post("/api/knowledge", json={"name": "uploads"})
    reply = http.post("/api/knowledge/uploads/paths", json={"paths": [path]})
    assert reply.status_code in {400, 404}
    assert http.post("/api/models", json={"path": path or "\x00"}).status_code in {400, 404}


# --- many at once


def test_two_hundred_requests_at_once_are_all_answered(http: httpx.Client, server: LocalServer) -> None:
    threads_before = threading.active_count()
    body = json.dumps({"model": "none", "messages": [{"role": "user", "content": "hi"}]})

    def one(i: int) -> int:
        if i % 2:
            return http.get("/api/status").status_code
        return post(http, "/v1/chat/completions", body).status_code

    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        statuses = list(pool.map(one, range(200)))
    assert sorted(set(statuses)) == [200, 404]
    end = time.monotonic() + 10
    while threading.active_count() > threads_before + 45 and time.monotonic() < end:
        time.sleep(0.1)
    assert threading.active_count() <= threads_before + 45
