"""Source code: every definition is a block with its name and lines. Oracles: Python's `ast` and `inspect`."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import json.decoder
import textwrap
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from quinze.knowledge.document import Block, BlockKind
from quinze.knowledge.readers.code import LONGEST_CHARS, LONGEST_LINES, code_blocks, read
from quinze.knowledge.readers.report import Report

MODULES = [argparse, dataclasses, json.decoder, textwrap]


def source_of(module: ModuleType) -> str:
    return Path(inspect.getsourcefile(module) or "").read_text(encoding="utf-8")


def functions(tree: ast.AST, prefix: str = "") -> list[tuple[str, int, int]]:
    """(qualified name, first line with decorators, last line) of every function in a module or class body."""
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            found.append((prefix + node.name, first, node.end_lineno or 0))
        elif isinstance(node, ast.ClassDef):
            found.extend(functions(node, f"{prefix}{node.name}."))
        elif isinstance(node, ast.If | ast.Try | ast.With):
            found.extend(functions(node, prefix))
    return found


def lines_of(block: Block) -> tuple[int, int]:
    assert block.place.lines is not None
    return block.place.lines


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_functions_have_the_names_and_lines_that_ast_gives_them(module: ModuleType) -> None:
    source = source_of(module)
    lines = source.split("\n")
    blocks = code_blocks(source, "python")
    expected = functions(ast.parse(source))
    assert expected
    for symbol, first, last in expected:
        pieces = sorted(lines_of(b) for b in blocks if b.place.symbol == symbol)
        own = [(a, b) for a, b in pieces if b >= first and a <= last]
        assert own, symbol
        assert own[0][0] <= first, symbol
        assert last <= own[-1][1], symbol
        # What stands before the first line and after the last, which ast doesn't see, are comments.
        around = lines[own[0][0] - 1 : first - 1] + lines[last : own[-1][1]]
        assert all(line.strip().startswith("#") or not line.strip() for line in around), symbol
        if last - first < LONGEST_LINES - 20 and sum(map(len, lines[first - 1 : last])) < LONGEST_CHARS - 500:
            assert len(own) == 1, f"{symbol} is short enough to stay whole"


def test_a_method_holds_the_text_that_inspect_finds() -> None:
    blocks = code_blocks(source_of(argparse), "python")
    [block] = [b for b in blocks if b.place.symbol == "ArgumentParser.parse_args"]
    assert block.text.endswith(inspect.getsource(argparse.ArgumentParser.parse_args).rstrip())
    assert block.place.label().startswith("ArgumentParser.parse_args, line")


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_every_line_stands_in_exactly_one_block(module: ModuleType) -> None:
    source = source_of(module)
    counts: Counter[int] = Counter()
    for block in code_blocks(source, "python"):
        first, last = lines_of(block)
        counts.update(range(first, last + 1))
    filled = {n for n, line in enumerate(source.split("\n"), 1) if line.strip()}
    assert filled <= set(counts)
    assert max(counts.values()) == 1


def test_a_module_docstring_is_read_as_words() -> None:
    first = code_blocks(source_of(textwrap), "python")[0]
    assert first.kind is BlockKind.PARAGRAPH
    assert first.text == inspect.getdoc(textwrap)


SNIPPETS = {
    "javascript": (
        "// adds\nexport function add(a, b) { return a + b }\nconst half = (x) => x / 2\nlet n = 3\n"
        "class Point extends Base {\n  x = 0\n  /** far */\n  distance(o) { return 1 }\n"
        "  static of() { return 2 }\n}\n"
        "module.exports.twice = function (x) { return 2 * x }\n",
        ["add", "half", "Point", "Point.distance", "Point.of", "module.exports.twice"],
    ),
    "typescript": (
        "export interface Shape { area(): number }\nexport type Id = string | number\n"
        "export abstract class Box implements Shape {\n  constructor(private w: number) {}\n"
        "  area(): number { return this.w }\n}\nexport const f = async (x: Id): Promise<Id> => x\n"
        "namespace N {\n  export function g() {}\n}\n",
        ["Shape", "Id", "Box", "Box.constructor", "Box.area", "f", "N", "N.g"],
    ),
    "java": (
        "package a.b;\n/** A bank. */\npublic class Bank {\n  private int n;\n  @Override\n"
        "  public int sum() {\n"
        "    return n;\n  }\n  Bank(int n) { this.n = n; }\n  enum Kind { A, B }\n}\n",
        ["Bank", "Bank.sum", "Bank.Bank", "Bank.Kind"],
    ),
    "c": (
        "#include <stdio.h>\nstruct point { int x; };\ntypedef struct { int a; } pair;\n#ifdef X\n"
        "static int *find(const char *s)\n{\n  return 0;\n}\n#endif\n/* entry */\n"
        "int main(void) { return 0; }\n",
        ["point", "pair", "find", "main"],
    ),
    "cpp": (
        "namespace store {\ntemplate <typename T>\nclass Heap {\n public:\n  Heap();\n  ~Heap() {}\n"
        "  T& top() const { return a; }\n};\nvoid Heap2::push(int x) { }\nenum class Kind { A };\n}\n",
        ["store.Heap", "store.Heap.~Heap", "store.Heap.top", "store.Heap2.push", "store.Kind"],
    ),
    "csharp": (
        "namespace A.B {\n  class Stack<T> {\n    public int Count { get; set; }\n"
        "    public void Push(T x) { }\n"
        "    public Stack() { }\n  }\n  enum E { X }\n}\n",
        ["A.B.Stack", "A.B.Stack.Count", "A.B.Stack.Push", "A.B.Stack.Stack", "A.B.E"],
    ),
    "go": (
        "package main\n\n// Server serves.\ntype Server struct {\n\tport int\n}\n\n"
        "func (s *Server) Run(a int) error {\n\treturn nil\n}\n\nfunc main() {}\n",
        ["Server", "Server.Run", "main"],
    ),
    "rust": (
        "/// A tree.\n#[derive(Debug)]\npub struct Tree<T> { v: T }\nimpl<T> Tree<T> {\n"
        "    pub fn new(v: T) -> Self "
        "{ Tree { v } }\n}\ntrait Walk { fn walk(&self); }\nmod inner {\n    pub fn f() {}\n}\n"
        "fn main() {}\n",
        ["Tree", "Tree.new", "Walk", "inner", "inner.f", "main"],
    ),
    "ruby": (
        "module Shop\n  class Cart\n    def total(x)\n      x\n    end\n"
        "    def self.empty; new; end\n  end\nend\n"
        "def top; end\n",
        ["Shop.Cart", "Shop.Cart.total", "Shop.Cart.empty", "top"],
    ),
    "php": (
        "<?php\nnamespace App;\nclass User {\n  public $n;\n"
        "  public function name() { return $this->n; }\n}\n"
        "function helper() { return 1; }\n",
        ["User", "User.name", "helper"],
    ),
    "bash": (
        "#!/bin/bash\nset -e\nfunction build {\n  make\n}\nclean() {\n  rm x\n}\nbuild\n",
        ["build", "clean"],
    ),
}


@pytest.mark.parametrize("language", sorted(SNIPPETS))
def test_definitions_of_each_language_are_named(language: str) -> None:
    source, symbols = SNIPPETS[language]
    blocks = code_blocks(source, language)
    found = [b.place.symbol for b in blocks if b.place.symbol]
    assert [s for s in dict.fromkeys(found) if s in symbols] == symbols
    text = "\n".join(b.text for b in blocks)
    for line in source.split("\n"):
        assert line.rstrip() in text


def test_a_leading_comment_belongs_to_its_definition() -> None:
    blocks = code_blocks(SNIPPETS["rust"][0], "rust")
    tree = next(b for b in blocks if b.place.symbol == "Tree")
    assert tree.text.startswith("/// A tree.\n#[derive(Debug)]")


def test_broken_source_keeps_its_whole_functions() -> None:
    blocks = code_blocks(
        "def good():\n    return 1\n\n\ndef broken():\n    x = = 2\n\n\ndef also():\n    return 3\n", "python"
    )
    symbols = {b.place.symbol for b in blocks}
    assert {"good", "also"} <= symbols
    assert any("x = = 2" in b.text for b in blocks)


def test_an_unknown_language_comes_in_windows_that_end_at_blank_lines() -> None:
    source = "\n\n".join(f"paragraph {n}\n" + "line\n" * 8 for n in range(20))
    blocks = code_blocks(source, "cobol")
    assert len(blocks) > 3
    assert all(b.text.startswith("paragraph") for b in blocks)
    assert "".join(b.text for b in blocks).count("line") == 160


def test_a_huge_function_is_divided_at_its_statements() -> None:
    source = "def huge():\n" + "".join(
        f"    if x == {n}:\n        go({n})\n        stop({n})\n" for n in range(100)
    )
    blocks = code_blocks(source, "python")
    assert len(blocks) > 4
    assert {b.place.symbol for b in blocks} == {"huge"}
    assert all(b.text.lstrip().startswith(("def huge", "if x ==")) for b in blocks)


def test_a_line_without_end_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "bundle.js"
    path.write_text("var a=" + "1+" * 30_000 + "1;")
    document = read(path, Report("bundle.js", "javascript"))
    assert max(len(b.text) for b in document.blocks) <= LONGEST_CHARS
    assert sum(len(b.text) for b in document.blocks) == path.stat().st_size
