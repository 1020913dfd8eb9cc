"""The page, as a person meets it: from the first visit to a passage marked in its own document."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from playwright.sync_api import Locator, Page, Route, expect
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen import canvas

pytestmark = pytest.mark.browser

SENTENCE = "员工累计工作已满一年不满十年的，年休假五天。"
DOCX = [
    "员工手册", "本手册自二〇二六年一月一日起施行，由人力资源部负责解释。", SENTENCE,
    "会议室须提前一天在前台登记，使用后请关闭投影仪。",
]  # fmt: skip
CSV = "品名,产地,单价\n铁观音,安溪,320.00\n龙井,杭州,560.00\n正山小种,武夷山,410.00\n"
PDF_LINES = ("The annual budget was approved in March.", "The lighthouse keeper feeds seven grey pelicans.")


def docx() -> bytes:
    """A Word file of plain paragraphs, as small as one can be."""
    types = (
        '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Override PartName="/word/document.xml" ContentType="application/'
        'vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
    )
    relations = (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        '<Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/'
        'officeDocument" Target="word/document.xml"/></Relationships>'
    )
    body = "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in DOCX)
    document = (
        '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
        f"<w:body>{body}</w:body></w:document>"
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("[Content_Types].xml", types)
        archive.writestr("_rels/.rels", relations)
        archive.writestr("word/document.xml", document)
    return file.getvalue()


def pdf() -> bytes:
    """Two pages, one sentence on each, the second low on its page."""
    file = io.BytesIO()
    drawing = canvas.Canvas(file, pagesize=A4)
    for line, height in zip(PDF_LINES, (760, 180), strict=True):
        drawing.drawString(72, height, line)
        drawing.showPage()
    drawing.save()
    return file.getvalue()


def upload(page: Page, **files: bytes) -> None:
    kinds = [
        {"name": name, "mimeType": "application/octet-stream", "buffer": data} for name, data in files.items()
    ]
    page.get_by_test_id("files").set_input_files(kinds)  # type: ignore[arg-type]


def ask(page: Page, question: str) -> Locator:
    """The answer, once its account stands beneath it."""
    page.locator("[data-ask]").fill(question)
    page.keyboard.press("Enter")
    article = page.locator("article").filter(has_text=question).first
    expect(article.locator(".account")).to_be_visible()
    expect(article.locator("[aria-busy=false]")).to_be_visible()
    return article


def make(page: Page, name: str, **files: bytes) -> None:
    """A knowledge base with these files in it, made by hand."""
    page.locator("main input.field").first.fill(name)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()
    upload(page, **files)
    expect(page.get_by_test_id("documents").locator("li")).to_have_count(len(files), timeout=120_000)


def background(page: Page) -> int:
    """How light the page's paper is, 0 to 255."""
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return max(int(part) for part in re.findall(r"\d+", color)[:3])


def test_from_the_first_visit_to_a_passage_marked_in_its_document(visit: Callable[..., Page]) -> None:
    page = visit("/")
    expect(page).to_have_url(re.compile("/knowledge$"))
    expect(page.get_by_role("heading", level=1)).to_have_text("向自己的文档提问")
    make(page, "茶馆", **{"员工手册.docx": docx(), "价目.csv": CSV.encode(), "report.pdf": pdf()})

    answer = ask(page, "员工年休假有几天？")
    answer.locator("button[data-citation]").first.click()
    source = page.get_by_test_id("source")
    expect(source).to_contain_text("员工手册.docx")
    mark = source.locator("mark[data-marked]").first
    expect(mark).to_contain_text("年休假五天")
    expect(mark).to_be_in_viewport()
    assert "cite=1" in page.url

    page.reload()
    expect(page.get_by_test_id("source").locator("mark[data-marked]").first).to_contain_text("年休假五天")
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("source")).to_have_count(0)

    answer = ask(page, "龙井的单价是多少？")
    answer.locator("button[data-citation='1']").first.click()
    row = page.get_by_test_id("source").locator("tr[data-marked]")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("560.00")
    expect(page.get_by_test_id("source").locator("thead")).to_contain_text("单价")
    page.keyboard.press("Escape")

    answer = ask(page, "What does the lighthouse keeper feed?")
    answer.locator("button[data-citation='1']").first.click()
    frame = page.get_by_test_id("source").locator(".frame[data-marked]").first
    expect(frame).to_be_in_viewport()
    picture = page.get_by_test_id("source").locator("img")
    assert picture.evaluate("image => image.naturalWidth") > 100
    drawn, around = frame.bounding_box(), picture.bounding_box()
    assert drawn is not None
    assert around is not None
    middle = (drawn["y"] + drawn["height"] / 2 - around["y"]) / around["height"]
    assert middle == pytest.approx(1 - 184 / A4[1], abs=0.02), "the frame stands where the sentence was drawn"


def test_a_page_that_comes_late_is_still_shown_where_it_is_cited(visit: Callable[..., Page]) -> None:
    page = visit("/", locale="en-US")
    make(page, "Late", **{"report.pdf": pdf()})
    page.set_viewport_size({"width": 1280, "height": 520})
    answer = ask(page, "What does the lighthouse keeper feed?")

    def late(route: Route) -> None:
        page.wait_for_timeout(1_000)
        route.continue_()

    page.route("**/pages/*.png*", late)
    answer.locator("button[data-citation='1']").first.click()
    expect(page.get_by_test_id("source").locator(".frame[data-marked]").first).to_be_in_viewport()


def test_a_question_that_nothing_answers_is_told_so(visit: Callable[..., Page]) -> None:
    page = visit("/")
    make(page, "价目", **{"价目.csv": CSV.encode()})
    answer = ask(page, "火星上有几座图书馆？")
    expect(answer.locator("button[data-citation]")).to_have_count(0)
    expect(answer).to_contain_text("没有")
    expect(answer).to_contain_text("检索了 1 份文档")


def test_a_file_that_cannot_be_read_says_why_and_can_be_tried_again(visit: Callable[..., Page]) -> None:
    page = visit("/", locale="en-US")
    make(page, "Broken", **{"broken.pdf": b"%PDF-1.7\n" + b"\x00" * 400, "tea.csv": CSV.encode()})
    row = page.get_by_test_id("documents").locator("li", has_text="broken.pdf")
    expect(row.locator(".reason")).not_to_be_empty()
    page.get_by_test_id("language").click()
    expect(row.locator(".reason")).to_have_text("文件读不出来，可能已损坏或与文件名不符。")
    page.get_by_test_id("language").click()
    expect(page.locator("header")).to_contain_text("1 could not be read")
    row.get_by_role("button", name="Try again").click()
    expect(row.locator(".reason")).not_to_be_empty()
    row.get_by_role("button", name="Remove broken.pdf").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_test_id("documents").locator("li")).to_have_count(1)


def test_the_language_switches_without_a_reload_and_is_remembered(visit: Callable[..., Page]) -> None:
    page = visit("/settings", locale="en-US")
    expect(page.get_by_role("heading", level=1)).to_have_text("Settings")
    page.evaluate("window.sameDocument = true")
    page.get_by_test_id("language").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("设置")
    assert page.evaluate("window.sameDocument") is True
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("设置")


def test_the_theme_follows_the_system_until_it_is_chosen(visit: Callable[..., Page]) -> None:
    page = visit("/settings", locale="en-US", dark=True)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert background(page) < 60
    page.get_by_text("Light", exact=True).click()
    assert background(page) > 200
    page.reload()
    assert background(page) > 200


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_words_are_readable_on_their_ground(visit: Callable[..., Page], dark: bool) -> None:
    """WCAG AA: 4.5 to 1, for every ink of the palette on every ground it stands on."""
    page = visit("/settings", dark=dark)
    pairs = [
        (ink, ground)
        for ink in ("ink", "ink-2", "ink-3", "accent")
        for ground in ("paper", "surface", "sunken")
    ]
    pairs += [(f"{status}", f"{status}-soft") for status in ("verbatim", "supported", "weak", "unsupported")]
    pairs += [("surface", status) for status in ("verbatim", "supported", "weak", "unsupported")]
    pairs += [("accent-ink", "accent"), ("paper", "ink"), ("ink", "mark")]
    for ink, ground in pairs:
        ratio = page.evaluate(CONTRAST, [f"--{ink}", f"--{ground}"])
        assert ratio >= 4.5, f"{ink} on {ground}: {ratio:.2f}"


CONTRAST = """([a, b]) => {
  const style = getComputedStyle(document.documentElement)
  const light = (name) => {
    const hex = style.getPropertyValue(name).trim().slice(1)
    const parts = [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255)
    const [r, g, b] = parts.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const [x, y] = [light(a), light(b)].sort((p, q) => q - p)
  return (x + 0.05) / (y + 0.05)
}"""


@pytest.mark.parametrize("path", ["/knowledge", "/chat", "/models", "/settings"])
def test_nothing_is_wider_than_a_phone(visit: Callable[..., Page], path: str) -> None:
    page = visit(path, width=360)
    expect(page.locator("main")).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("document.querySelector('main').scrollWidth") <= 360


def test_enter_belongs_to_the_input_method_while_chinese_is_composed(visit: Callable[..., Page]) -> None:
    page = visit("/")
    make(page, "输入", **{"价目.csv": CSV.encode()})
    box = page.locator("[data-ask]")
    box.fill("long'jing")
    box.evaluate("""box => box.dispatchEvent(new KeyboardEvent('keydown',
      {key: 'Enter', isComposing: true, bubbles: true, cancelable: true}))""")
    expect(page.locator("article")).to_have_count(0)
    assert box.input_value() == "long'jing"


def test_a_mistake_is_shown_where_it_was_made_with_what_to_do(visit: Callable[..., Page], watch: Any) -> None:
    watch.expected = ("status of 4",)
    page = visit("/models", locale="en-US")
    page.locator("main input").fill("/nowhere/model.gguf")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("/nowhere/model.gguf")


def test_the_name_of_a_knowledge_base_may_hold_anything_a_name_may(visit: Callable[..., Page]) -> None:
    name = "笔记 v1.5 (50%) & co #1"
    page = visit("/")
    make(page, name, **{"价目.csv": CSV.encode()})
    assert quote(name, safe="()&") in page.url or name in unquote(page.url)
    page.reload()
    expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()


def test_what_is_dropped_anywhere_on_the_page_is_taken_in(visit: Callable[..., Page]) -> None:
    page = visit("/")
    make(page, "拖放", **{"价目.csv": CSV.encode()})
    page.evaluate(
        """([name, text]) => {
          const transfer = new DataTransfer()
          transfer.items.add(new File([text], name))
          const how = {dataTransfer: transfer, bubbles: true, cancelable: true}
          for (const type of ['dragenter', 'dragover', 'drop']) {
            document.body.dispatchEvent(new DragEvent(type, how))
          }
        }""",
        ["笔记.md", "# 笔记\n\n船在黎明起航。"],
    )
    expect(page.get_by_test_id("documents").locator("li")).to_have_count(2)
    expect(page.get_by_test_id("documents")).to_contain_text("笔记.md")


def test_a_folder_is_taken_in_with_its_names_and_what_is_left_out_is_named(
    tmp_path: Path, visit: Callable[..., Page]
) -> None:
    folder = tmp_path / "资料"
    (folder / "价格").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / ".git" / "config.md").write_text("# not for reading")
    (folder / "价格" / "茶.csv").write_text(CSV, "utf-8")
    (folder / "program.exe").write_bytes(b"MZ")
    page = visit("/")
    make(
        page, "文件夹", **{"<img src=x onerror=alert(1)>.md": "# 标题\n\n<script>alert(1)</script>".encode()}
    )
    page.get_by_test_id("folder").set_input_files(folder)
    expect(page.get_by_test_id("documents").locator("li")).to_have_count(2)
    expect(page.get_by_test_id("documents")).to_contain_text("资料/价格/茶.csv")
    expect(page.get_by_test_id("documents")).to_contain_text("<img src=x onerror=alert(1)>.md")
    expect(page.locator("main")).to_contain_text("资料/program.exe")
    expect(page.locator("main")).to_contain_text("不是 Quinze 能读的文档类型")
    expect(page.locator("main")).not_to_contain_text("config.md")


def test_a_path_is_written_at_once_and_read_where_it_lies(tmp_path: Path, visit: Callable[..., Page]) -> None:
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "sails.md").write_text("The ship sails at dawn.")
    page = visit("/", locale="en-US")
    make(page, "By path", **{"价目.csv": CSV.encode()})
    page.get_by_role("button", name="Path", exact=True).click()
    page.keyboard.type(str(folder))
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("documents")).to_contain_text("papers/sails.md", timeout=30_000)


def test_what_the_page_made_lies_in_the_home(home: Path, visit: Callable[..., Page]) -> None:
    page = visit("/")
    make(page, "留存", **{"价目.csv": CSV.encode()})
    assert (home / "knowledge" / "留存" / "knowledge.sqlite").is_file()
