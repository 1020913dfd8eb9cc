"""How long does a person wait for `pip install .`, beside llama-cpp-python's?

    python benchmarks/install.py             ours, in a fresh virtual environment, packages in pip's cache
    python benchmarks/install.py --peer      llama-cpp-python from its source package, the same way (minutes)

Prints seconds, what lies on the disk afterwards, and the versions.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEER = "llama-cpp-python"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", action="store_true", help=f"also build {PEER}")
    arguments = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, Python {platform.python_version()}")
    install("quinze", [str(ROOT)])
    if arguments.peer:
        install(PEER, ["--no-binary", PEER, "--no-cache-dir", PEER])


def install(name: str, what: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = Path(folder) / "bin" / "python"
        before = os.times()
        started = time.monotonic()
        subprocess.run([python, "-m", "pip", "install", "--quiet", *what], cwd="/", check=True)
        seconds, after = time.monotonic() - started, os.times()
        processor = (
            after.children_user + after.children_system - before.children_user - before.children_system
        )
        version = subprocess.run(
            [python, "-c", f"from importlib.metadata import version; print(version('{name}'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        disk = sum(path.lstat().st_size for path in Path(folder).rglob("*")) / 1e6
        print(
            f"{name} {version}: {seconds:.0f} s ({processor:.0f} s of processor time), {disk:.0f} MB on disk"
        )


if __name__ == "__main__":
    main()
