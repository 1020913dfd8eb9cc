"""The web page: built files and nothing beside them; a plain page while it is not built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quinze.server.static_files import page_folder


@pytest.fixture
def built(serve: Any, tmp_path: Path) -> Any:
    """A server whose page is built, with a secret lying beside it and links that lead out."""
    folder = tmp_path / "page"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>the page</title>")
    (folder / "assets" / "app-1234.js").write_text("console.log(15)")
    (tmp_path / "secret.txt").write_text("hidden words")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "out").symlink_to(tmp_path)
    running = serve()
    running.server.app.state.page_folder = folder
    return running


@pytest.mark.parametrize(
    "path", ["/", "/knowledge", "/chat/15", "/知识库/笔记", "/knowledge/v1.5", "/knowledge/a.b/documents/1.5"]
)
def test_every_place_in_the_page_is_the_page(built: Any, path: str) -> None:
    reply = built.http.get(path)
    assert reply.status_code == 200
    assert "the page" in reply.text
    assert reply.headers["cache-control"] == "no-cache"


def test_built_files_are_kept_by_the_browser(built: Any) -> None:
    reply = built.http.get("/assets/app-1234.js")
    assert reply.text == "console.log(15)"
    assert reply.headers["content-type"].startswith("text/javascript")
    assert "immutable" in reply.headers["cache-control"]


@pytest.mark.parametrize("path", ["/assets/none.js", "/link.txt", "/out/secret.txt", "/favicon.ico"])
def test_what_is_not_there_or_leads_out_is_not_found(built: Any, path: str) -> None:
    reply = built.http.get(path)
    assert reply.status_code == 404
    assert "hidden" not in reply.text


@pytest.mark.parametrize("path", ["/api/none", "/v1/none", "/api", "/v1"])
def test_an_unknown_route_of_the_interface_is_json_not_the_page(built: Any, path: str) -> None:
    reply = built.http.get(path)
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "not_found"


def test_another_method_is_refused_in_the_one_error_shape(built: Any) -> None:
    assert built.http.put("/api/status").json()["error"]["code"] == "method_not_allowed"


def test_a_source_checkout_serves_the_page_that_was_built_in_it(tmp_path: Path) -> None:
    """The built package comes first; without it, and outside a checkout, nothing else is looked for."""
    built, checkout = tmp_path / "static", tmp_path / "checkout"
    assert page_folder(built, checkout) == built
    (checkout / "web").mkdir(parents=True)
    (checkout / "web" / "package.json").write_text("{}")
    assert page_folder(built, checkout) == checkout / "web" / "dist"
    built.mkdir()
    (built / "index.html").write_text("<!doctype html>")
    assert page_folder(built, checkout) == built


def test_before_it_is_built_a_plain_page_says_how(serve: Any, tmp_path: Path) -> None:
    running = serve()
    running.server.app.state.page_folder = tmp_path / "nothing"
    page = running.http.get("/").text
    assert "npm run build" in page
    assert "尚未构建" in page
