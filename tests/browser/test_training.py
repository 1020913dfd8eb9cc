"""The training page: a run that another process makes, watched while its log grows."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Page, expect

from quinze.training.control import holding, wanted
from quinze.training.doctor.words import finding
from quinze.training.events import EvaluationReport, RunEnd, SampleReport, StepReport, TrainingEvent

pytestmark = pytest.mark.browser

FLOORS = {
    "vocab_size": 65, "uniform": 4.174, "unigram": 3.31, "bigram": 2.46, "trigram": 2.05,
    "tokens_counted": 1_000_000, "tokens_scored": 100_000, "all_counted": True,
}  # fmt: skip


class Script:
    """A run made of words: what it writes is what a trainer would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "run.toml").write_text('method = "pretrain"\n[data]\nfolder = "/data"\n')
        (folder / "floors.json").write_text(json.dumps(FLOORS))

    def write(self, *events: TrainingEvent) -> None:
        with (self.folder / "metrics.jsonl").open("ab") as file:
            file.writelines(msgspec.json.encode(event) + b"\n" for event in events)

    def steps(self, first: int, last: int) -> None:
        self.write(*(
            StepReport(
                step=i, tokens=4096 * i, epoch=i / 300, seconds=i * 0.9, loss=1.6 + 2.6 / (1 + i / 60),
                learning_rate=1.0, grad_norm=0.9, tokens_per_second=4551.0, progress=i / 1000,
                eta_seconds=(1000 - i) * 0.9,
            )
            for i in range(first, last + 1)
        ))  # fmt: skip

    def evaluation(self, step: int, loss: float) -> None:
        self.write(
            EvaluationReport(
                step=step,
                seconds=step * 0.9,
                split="val",
                loss=loss,
                bits_per_byte=loss * 1.44,
                best=True,
                train_loss=loss,
            ),
            SampleReport(step=step, prompt="ROMEO:", text=" What light through yonder window?"),
        )

    def end(self) -> None:
        model = self.folder / "final"
        model.mkdir()
        self.write(
            RunEnd(reason="stopped", step=500, seconds=450.0, best_step=500, best_loss=1.71, model=str(model))
        )


@pytest.fixture
def script(site: Any, home: Path) -> Iterator[Script]:
    """A run that holds its lock until the test, or `release`, lets it go."""
    made = Script(home / "runs" / "shakespeare v1.0")
    with contextlib.ExitStack() as stack:
        stack.enter_context(holding(made.folder))
        made.release = stack.close  # type: ignore[attr-defined]
        yield made


WORDS = {
    "en-US": ["Training", "running", "pairs", "Pause", "Go on", "paused", "Stop, keep the best", "finished"],
    "zh-CN": ["训练", "训练中", "两词相连", "暂停", "继续", "已暂停", "停止并保留最佳", "已完成"],
}  # fmt: skip


@pytest.mark.parametrize(("locale", "width", "dark"), [("en-US", 1280, False), ("zh-CN", 390, True)])
def test_a_run_is_watched_while_it_grows(
    visit: Callable[..., Page], script: Script, locale: str, width: int, dark: bool
) -> None:
    title, running, pairs, pause, go_on, paused, stop, finished = WORDS[locale]
    script.steps(1, 200)
    script.evaluation(200, 2.3)
    page = visit("/training", locale=locale, width=width, dark=dark)
    expect(page.get_by_role("heading", level=1)).to_have_text(title)
    page.get_by_role("link", name="shakespeare v1.0").click()
    expect(page.get_by_test_id("run-state")).to_have_text(running)
    curve = page.get_by_test_id("curve")
    expect(curve).to_have_attribute("aria-label", re.compile("200"))
    expect(curve).to_contain_text(re.compile(rf"{pairs} 2\.46"))
    expect(curve.locator("circle")).to_have_count(1)

    script.steps(201, 500)
    script.evaluation(500, 1.9)
    script.write(finding("B5.short", "warning", steps=12, batch=80))
    expect(curve).to_have_attribute("aria-label", re.compile("500"))
    expect(curve.locator("circle")).to_have_count(2)
    expect(page.locator("article.warning")).to_have_count(1)
    expect(page.locator("article.warning .verdict")).to_contain_text(
        "优化" if locale == "zh-CN" else "only 12 optimizer steps"
    )
    expect(page.locator(".sample")).to_have_count(2)

    page.get_by_role("button", name=pause, exact=True).click()
    expect(page.get_by_test_id("run-state")).to_have_text(paused)
    assert wanted(script.folder) == "pause"
    page.get_by_role("button", name=go_on).click()
    expect(page.get_by_test_id("run-state")).to_have_text(running)
    page.get_by_role("button", name=stop).click()
    page.get_by_role("dialog").get_by_role("button", name=stop).click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert wanted(script.folder) == "stop"

    script.end()
    script.release()  # type: ignore[attr-defined]
    expect(page.get_by_test_id("run-state")).to_have_text(finished)
    model = page.get_by_test_id("model")
    expect(model).to_contain_text(f"{script.folder}/final")
    expect(model).to_contain_text("quinze export")
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0


def test_a_run_that_cannot_begin_is_refused_with_its_reason(
    visit: Callable[..., Page],
    site: Any,
    watch: Any,
) -> None:
    watch.expected = ("400 (Bad Request)",)
    page = visit("/training", locale="en-US")
    page.get_by_label("Prepared data").fill("/no/such/folder")
    page.get_by_role("button", name="Begin a run").click()
    expect(page.get_by_role("alert")).to_contain_text("There is no file or folder '/no/such/folder'")
