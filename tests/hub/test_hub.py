"""What comes from a hub is what the hub states, however badly the network behaves."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from quinze.errors import HubError, InvalidRequestError, NotFoundError, StorageError
from quinze.hub import connection
from quinze.hub.hub import Hub

MODEL = bytes(range(256)) * 4000


def bring(fake: Any, hub: Hub, to: Path, **options: Any) -> bool:
    fake.files.setdefault("model.gguf", MODEL)
    (file,) = (file for file in hub.files("org/name") if file.path == "model.gguf")
    return hub.download(file, to, **options)


def test_a_list_of_hugging_face_is_read_and_its_commit_kept(fake: Any, hub: Hub) -> None:
    fake.files = {"model.gguf": MODEL, "config.json": b"{}"}
    fake.plain = {"config.json"}
    model, config = hub.files("org/name")
    assert (model.size, model.sha256) == (len(MODEL), hashlib.sha256(MODEL).hexdigest())
    assert (config.size, config.sha256) == (2, None)
    assert "/resolve/0e9e39f249a16976918f6564b8830bc894c89659/" in model.url


def test_a_list_of_modelscope_is_read_and_a_file_of_it_comes(fake: Any, tmp_path: Path) -> None:
    fake.files = {"sub/model.gguf": MODEL}
    hub = Hub("modelscope", fake.url, idle_timeout=0.5, pause=0.01)
    (file,) = hub.files("org/name")
    assert hub.download(file, tmp_path / "m.gguf")
    assert (tmp_path / "m.gguf").read_bytes() == MODEL


def test_a_file_comes_whole_and_nothing_else_is_left(fake: Any, hub: Hub, tmp_path: Path) -> None:
    told: list[int] = []
    assert bring(fake, hub, tmp_path / "model.gguf", progress=told.append)
    assert (tmp_path / "model.gguf").read_bytes() == MODEL
    assert told == sorted(told)
    assert told[-1] == len(MODEL)
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["model.gguf"]


def test_a_dropped_connection_goes_on_where_it_ended(fake: Any, hub: Hub, tmp_path: Path) -> None:
    fake.tricks = [fake.dropping(300_000), fake.dropping(200_000)]
    assert bring(fake, hub, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == MODEL
    ranges = [headers.get("range") for headers in fake.file_requests()]
    assert ranges == [None, "bytes=300000-", "bytes=500000-"]
    assert fake.file_requests()[1]["if-range"] == '"one"'


def test_a_stall_is_noticed_and_mended(fake: Any, hub: Hub, tmp_path: Path) -> None:
    fake.tricks = [fake.stalling(100_000)]
    assert bring(fake, hub, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == MODEL


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_hub_is_asked_again(fake: Any, hub: Hub, tmp_path: Path, status: int) -> None:
    fake.list_tricks = [fake.refusing(status)]
    fake.tricks = [fake.refusing(status, {"Retry-After": "0"})]
    assert bring(fake, hub, tmp_path / "model.gguf")


def test_a_hub_that_is_always_busy_is_given_up(fake: Any, hub: Hub, tmp_path: Path) -> None:
    fake.tricks = [fake.refusing(500)] * 9
    with pytest.raises(HubError, match="HTTP 500"):
        bring(fake, hub, tmp_path / "model.gguf")
    assert len(fake.file_requests()) == 4


def test_a_file_that_changed_midway_begins_anew(fake: Any, hub: Hub, tmp_path: Path) -> None:
    """If-Range makes an honest hub send all of it."""

    def changed(handler: Any, data: bytes, start: int) -> bool:
        handler.send_from(MODEL[::-1], 0, '"zero"', most=300_000)
        return True

    fake.tricks = [changed]
    assert bring(fake, hub, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == MODEL


def test_a_hub_that_goes_on_with_another_file_is_found_out(fake: Any, hub: Hub, tmp_path: Path) -> None:
    def other(handler: Any, data: bytes, start: int) -> bool:
        handler.send_from(MODEL[::-1], 300_000, '"two"')
        return True

    fake.tricks = [fake.dropping(300_000), other]
    assert bring(fake, hub, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == MODEL


def test_a_hub_that_answers_another_range_is_found_out(fake: Any, hub: Hub, tmp_path: Path) -> None:
    def early(handler: Any, data: bytes, start: int) -> bool:
        handler.send_from(data, start - 1000)
        return True

    fake.tricks = [fake.dropping(300_000), early]
    assert bring(fake, hub, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == MODEL


def test_a_hub_that_knows_no_ranges_sends_all_again(fake: Any, hub: Hub, tmp_path: Path) -> None:
    def whole(handler: Any, data: bytes, start: int) -> bool:
        handler.send_from(data, 0)
        return True

    fake.tricks = [fake.dropping(300_000), whole]
    assert bring(fake, hub, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == MODEL


def test_a_hub_that_only_ever_begins_is_given_up(fake: Any, hub: Hub, tmp_path: Path) -> None:
    fake.plain = {"model.gguf"}
    count = iter(range(100))

    def new_each_time(handler: Any, data: bytes, start: int) -> bool:
        handler.send_from(data, 0, f'"{next(count)}"', most=1000)
        return True

    fake.tricks = [new_each_time] * 99
    with pytest.raises(HubError, match="ended after 1,000"):
        bring(fake, hub, tmp_path / "model.gguf")


def test_wrong_bytes_are_tried_once_more_and_then_refused(fake: Any, hub: Hub, tmp_path: Path) -> None:
    def lie(handler: Any, data: bytes, start: int) -> bool:
        handler.send_from(MODEL[::-1], 0)
        return True

    fake.tricks = [lie]
    assert bring(fake, hub, tmp_path / "one.gguf")
    fake.tricks = [lie, lie]
    with pytest.raises(HubError, match="sha256"):
        bring(fake, hub, tmp_path / "two.gguf")
    assert not any("two" in path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize("size", [len(MODEL) - 5, len(MODEL) + 5])
def test_a_length_other_than_stated_is_refused(fake: Any, hub: Hub, tmp_path: Path, size: int) -> None:
    fake.plain = {"model.gguf"}
    fake.stated = {"model.gguf": {"size": size}}
    with pytest.raises(HubError, match="1,024,000 bytes"):
        bring(fake, hub, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_a_body_without_an_end_is_cut(fake: Any, hub: Hub, tmp_path: Path) -> None:
    def endless(handler: Any, data: bytes, start: int) -> bool:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(data)
        return True

    fake.tricks = [endless]
    with pytest.raises(HubError, match="more bytes"):
        bring(fake, hub, tmp_path / "model.gguf")


def test_a_cancelled_download_keeps_what_came(fake: Any, hub: Hub, tmp_path: Path) -> None:
    """Even in the middle of a read, and the next one goes on from there."""
    slow = Hub("huggingface", fake.url, idle_timeout=60)
    fake.tricks = [fake.stalling(300_000)]
    stop = threading.Event()
    threading.Timer(0.4, stop.set).start()
    began = time.monotonic()
    assert not bring(fake, slow, tmp_path / "model.gguf", cancel=stop)
    assert time.monotonic() - began < 30
    assert not (tmp_path / "model.gguf").exists()
    assert bring(fake, hub, tmp_path / "model.gguf")
    assert fake.file_requests()[-1]["range"] == "bytes=300000-"
    assert (tmp_path / "model.gguf").read_bytes() == MODEL


def test_what_came_of_another_version_is_not_mixed_in(fake: Any, hub: Hub, tmp_path: Path) -> None:
    fake.tricks = [fake.dropping(300_000), *[fake.refusing(500)] * 9]
    with pytest.raises(HubError):
        bring(fake, hub, tmp_path / "model.gguf")
    fake.files, fake.tricks = {"model.gguf": MODEL[::-1]}, []
    assert bring(fake, hub, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == MODEL[::-1]


def test_the_token_goes_to_the_hub_and_to_nobody_else(fake: Any, tmp_path: Path) -> None:
    """Another port is another host. (Both lie on 127.0.0.1, where the mirror itself is.)"""
    hub = Hub("huggingface", fake.url, token="hf_secret", idle_timeout=0.5)
    other = fake.url.replace("127.0.0.1", "localhost")
    fake.tricks = [fake.sending_to(f"{other}/cdn/model.gguf")]
    assert bring(fake, hub, tmp_path / "model.gguf")
    by_path = {path.partition("?")[0]: headers for path, headers in fake.requests}
    with_token = [path for path, headers in by_path.items() if "authorization" in headers]
    assert with_token
    assert "authorization" not in by_path["/cdn/model.gguf"]
    assert len(with_token) == len(by_path) - 1


@pytest.mark.parametrize(
    "target",
    [
        "http://10.0.0.1/model.gguf",
        "http://169.254.169.254/latest/meta-data",
        "http://2130706434/model.gguf",
        "http://0x7f000002/model.gguf",
        "http://[::ffff:192.168.0.1]/model.gguf",
        "http://[::1]:1/model.gguf",
        "http://0.0.0.0:1/model.gguf",
    ],
)
def test_a_redirect_into_a_private_network_is_refused(
    fake: Any, hub: Hub, tmp_path: Path, target: str
) -> None:
    fake.tricks = [fake.sending_to(target)] * 9
    with pytest.raises(HubError, match="private network"):
        bring(fake, hub, tmp_path / "model.gguf")


def test_a_redirect_to_another_machine_of_this_network_is_refused(
    fake: Any, elsewhere: Any, hub: Hub, tmp_path: Path
) -> None:
    elsewhere.files = {"model.gguf": MODEL}
    fake.tricks = [fake.sending_to(f"{elsewhere.url}/cdn/model.gguf")] * 9
    with pytest.raises(HubError, match="private network"):
        bring(fake, hub, tmp_path / "model.gguf")
    assert elsewhere.requests == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://me:word@127.0.0.1/x"])
def test_a_redirect_to_what_is_no_web_address_is_refused(
    fake: Any, hub: Hub, tmp_path: Path, target: str
) -> None:
    fake.tricks = [fake.sending_to(target)] * 9
    with pytest.raises(HubError, match="no address"):
        bring(fake, hub, tmp_path / "model.gguf")


def test_redirects_without_end_are_not_followed(fake: Any, hub: Hub, tmp_path: Path) -> None:
    fake.tricks = [fake.sending_to("/cdn/model.gguf")] * 99
    with pytest.raises(HubError, match="redirected more than 5"):
        bring(fake, hub, tmp_path / "model.gguf")


def test_a_redirect_from_https_to_http_is_refused() -> None:
    door = connection.Door("https://hub.example", None, 1.0, lambda *_: ["93.184.216.34"])
    with pytest.raises(HubError, match="from https to http"):
        door._connect("http://hub.example/x", redirected=True)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111"])
def test_addresses_of_the_open_internet_are_told_from_others(address: str) -> None:
    assert connection._public(address)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.1.1", "100.64.0.1", "0.0.0.0", "::1",
     "fe80::1%eth0", "fc00::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "224.0.0.1"],
)  # fmt: skip
def test_addresses_that_are_not_for_strangers_are_known(address: str) -> None:
    assert not connection._public(address)


@pytest.mark.parametrize(
    "mirror", ["ftp://x", "file:///x", "hub.example", "https://a:b@hub.example", "http://"]
)
def test_a_mirror_must_be_a_web_address(mirror: str) -> None:
    with pytest.raises(InvalidRequestError):
        Hub("huggingface", mirror)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_repository_that_is_not_there_is_named(fake: Any, hub: Hub, status: int) -> None:
    fake.list_tricks = [fake.refusing(status)]
    with pytest.raises(NotFoundError, match="org/name") as raised:
        hub.files("org/name")
    assert "HF_TOKEN" in raised.value.hint


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"siblings": [1, {}], "sha": "x/../y"}'])
def test_a_list_that_is_none_is_refused(fake: Any, hub: Hub, body: bytes) -> None:
    def strange(handler: Any, data: bytes, start: int) -> bool:
        handler.answer(200, body)
        return True

    fake.list_tricks = [strange]
    with pytest.raises(HubError, match="no list"):
        hub.files("org/name")


def test_entries_that_are_not_stated_in_full_are_left_out(fake: Any, hub: Hub) -> None:
    fake.files = dict.fromkeys(("a", "b", "c", "d"), b"x")
    fake.stated = {
        "a": {"size": -1, "lfs": None},
        "b": {"lfs": {"sha256": "zz", "size": 1}},
        "c": {"rfilename": 7},
    }
    assert [file.path for file in hub.files("org/name")] == ["d"]


def test_a_place_that_cannot_be_written_is_no_reason_to_ask_again(
    fake: Any, hub: Hub, tmp_path: Path
) -> None:
    (tmp_path / "model.gguf.part").mkdir()
    with pytest.raises(StorageError):
        bring(fake, hub, tmp_path / "model.gguf")


def test_a_slow_hub_is_waited_for_as_long_as_bytes_come(fake: Any, hub: Hub, tmp_path: Path) -> None:
    fake.tricks = [fake.trickling(6, 0.2)]
    assert bring(fake, hub, tmp_path / "model.gguf")
    assert len(fake.file_requests()) == 1
