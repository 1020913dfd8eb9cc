"""The fuzzer finds what is planted, and nothing in what we have. The long runs are made by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).with_name("fuzz.py")


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FUZZ), *arguments], capture_output=True, text=True, check=False, env=os.environ
    )


def test_a_planted_crash_is_found_and_named_by_its_number(tmp_path: Path) -> None:
    done = fuzz("--cases", "7", "--targets", "planted", "--findings", str(tmp_path / "found"))
    assert done.returncode == 1
    found = (tmp_path / "found").read_text()
    assert "SIGSEGV" in found
    assert "IndexError" in found
    assert "MemoryError" in found
    assert found.startswith("planted:")


def test_some_damaged_files_of_each_kind_end_in_a_result_or_a_clear_error() -> None:
    done = fuzz("--cases", "12", "--start", "1000000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 findings" in done.stdout
