"""The web page: files of the folder that the package build made, and nothing beside it.

A path that is no file is the page itself (it finds its own way); before it is built, a plain page says how.
"""

from __future__ import annotations

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

FOLDER = Path(__file__).parent / "static"
"""Where the package build puts the page."""
_CHECKOUT = Path(__file__).resolve().parents[3]
_PLACES = ("knowledge/", "chat/", "training/")
"""Places in the page that end in a name a person chose: "/knowledge/v1.5" is no file."""
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".webmanifest": "application/manifest+json"}
_NOT_BUILT = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Quinze</title>
<h1>Quinze is running, its page is not built</h1>
<p>The service answers: try <a href="/health">/health</a>, <a href="/openapi.json">/openapi.json</a>,
or <code>quinze --help</code> in a terminal.</p>
<p>To build the page, run <code>npm ci &amp;&amp; npm run build</code> in the folder <code>web/</code>
of the source (it needs Node.js 20 or newer) and load this address again,
or install Quinze with <code>pip install .</code>, which does it for you.</p>
<h1 lang="zh">Quinze 正在运行，但网页尚未构建</h1>
<p lang="zh">在源码的 <code>web/</code> 中运行 <code>npm ci &amp;&amp; npm run build</code>
（需要 Node.js 20 以上），再刷新本页；
或用 <code>pip install .</code> 安装（会自动构建）。</p>
</html>
"""


def page_folder(built: Path = FOLDER, checkout: Path = _CHECKOUT) -> Path:
    """The page of the installed package; of a source checkout that runs in place, what `npm run build`
    makes there."""
    if not (built / "index.html").is_file() and (checkout / "web" / "package.json").is_file():
        return checkout / "web" / "dist"
    return built


async def page(request: Request) -> Response:
    path = request.path_params["path"]
    if path.startswith(("api/", "v1/")) or path in {"api", "v1"}:
        raise HTTPException(404, f"There is no route /{path[:200]}.")
    root: Path = request.app.state.page_folder
    found = _inside(root, path)
    if found is not None:
        # Built files bear a hash in their name; index.html must be asked for each time.
        forever = "assets/" in path
        control = "public, max-age=31536000, immutable" if forever else "no-cache"
        return FileResponse(found, media_type=_TYPES.get(found.suffix), headers={"cache-control": control})
    if "." in path.rpartition("/")[2] and not path.startswith(_PLACES):
        raise HTTPException(404, f"There is no file /{path[:200]}.")
    index = _inside(root, "index.html")
    if index is None:
        return HTMLResponse(_NOT_BUILT)
    return FileResponse(index, headers={"cache-control": "no-cache"})


def _inside(root: Path, path: str) -> Path | None:
    """The file at `path` under `root`, or None: also for every way out of it."""
    if not path or "\x00" in path or "\\" in path or len(path) > 1_000:
        return None
    if any(part in {"", ".", ".."} or part.startswith(".") for part in path.split("/")):
        return None
    try:
        found = (root / path).resolve()
        inside = found.is_relative_to(root.resolve()) and found.is_file()
    except OSError:
        return None
    return found if inside else None
