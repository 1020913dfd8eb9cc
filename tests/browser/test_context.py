"""The context bar: how full the window is, and in red what the model did not read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from quinze.llm.context import dropped, open_ledger
from quinze.llm.messages import Delta, Timings, Usage

pytestmark = pytest.mark.browser

GONE = [
    ("The contract that I spoke of", "user"), ("I have read it.", "assistant"),
    ("Who signed it?", "user"), ("Ida Brandt did.", "assistant"),
]  # fmt: skip


def overfull() -> dict[str, Any]:
    """The account of a reply for which two turns were left out."""
    entries = [
        dropped(text, 100 * (i + 1), part="history", role=role, turn=i // 2, message=i)  # type: ignore[arg-type]
        for i, (text, role) in enumerate(GONE)
    ]
    parts = {"system": 0, "knowledge": 0, "history": 300, "prompt": 20, "template": 10}
    ledger = open_ledger("it", 512, 330, parts, None, sent=1340, overflow="drop_oldest", dropped=entries)
    return ledger.account(12)


@pytest.fixture
def talk(visit: Callable[..., Page], site: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`talk(locale, width)`: a page on which one question was answered from an overfull window."""
    llm = site.add_scripted_model(home)

    def deltas(_cancel: Any) -> Iterator[Delta]:
        yield Delta("Hello.")
        yield Delta(finish_reason="stop", usage=Usage(330, 12), timings=Timings(0.1, 0.5), context=overfull())

    monkeypatch.setattr(llm, "_deltas", deltas)

    def begin(locale: str, width: int = 1280, policy: str = "") -> Page:
        page = visit("/chat", locale=locale, width=width)
        page.locator("[data-ask]").fill("And now?")
        expect(page.locator(".ask .send")).to_be_enabled()
        if policy:
            page.get_by_role("button", name="System prompt, temperature and context").click()
            page.get_by_label("When the conversation gets too long").select_option(policy)
            page.locator("[data-ask]").focus()
        page.keyboard.press("Enter")
        expect(page.locator("article .reply")).to_contain_text("Hello.")
        return page

    return begin


@pytest.mark.parametrize(
    ("locale", "width", "button", "title", "who"),
    [
        ("en-US", 1280, "2 turns dropped – show", "What the model did not read", "You · 100 tokens"),
        ("zh-CN", 1280, "舍弃了 2 轮 – 查看", "模型没有读到的内容", "你 · 100 个词元"),
        ("en-US", 390, "2 turns dropped – show", "What the model did not read", "You · 100 tokens"),
    ],
)
def test_dropped_turns_are_told_and_shown(
    talk: Callable[..., Page], locale: str, width: int, button: str, title: str, who: str
) -> None:
    page = talk(locale, width)
    page.get_by_role("button", name=button).click()
    dialog = page.get_by_role("dialog", name=title)
    expect(dialog.locator(".begins")).to_have_text([text for text, _ in GONE])
    expect(dialog.locator("li").first).to_contain_text(who)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0, "the bar does not widen the page"


def test_the_policy_chosen_beside_the_model_goes_with_the_request_and_is_kept(
    talk: Callable[..., Page], site: Any
) -> None:
    page = talk("en-US", policy="drop_oldest")
    assert [asked["context_overflow"] for asked in site.rooms.llm.asked] == ["drop_oldest"]
    page.reload()
    page.get_by_role("button", name="System prompt, temperature and context").click()
    expect(page.get_by_label("When the conversation gets too long")).to_have_value("drop_oldest")


def test_what_nobody_chose_is_left_to_the_service(talk: Callable[..., Page], site: Any) -> None:
    talk("en-US")
    assert [asked["context_overflow"] for asked in site.rooms.llm.asked] == [None]
