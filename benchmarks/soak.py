"""Does the service end where it began? Thousands of requests, some cancelled, some far too long.

    python benchmarks/soak.py [--model FILE] [--requests 2000] [--clients 8]

Starts `quinze serve` with a small model in a home of its own and sends it, from several clients at once:
completions, streamed and whole, with and without a seed, a constraint, an overflow policy; closes a third of
the streams in the middle; sends prompts longer than the context. The cache of prefixes is kept small, to be
full early. Printed: what came back, and the server's memory, threads and open files after every tenth. Exit
code 1 where an answer was neither whole nor a clear refusal, or where the end holds more than GROWTH times
the most of the first half.

Without --model: stories260K of the shared data (QUINZE_SHARED, default ../shared).
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SHARED = (ROOT / os.environ.get("QUINZE_SHARED", "../shared")).resolve()
GROWTH = 1.05
CONTEXT = 256
WORDS = "Once upon a time there was a little girl who liked to play in the park".split()  # noqa: SIM905


@contextlib.contextmanager
def served(model: Path, home: Path) -> Iterator[tuple[int, int]]:
    """(port, process id) of a server with this model."""
    quinze = [sys.executable, "-m", "quinze.cli"]
    environment = os.environ | {
        "QUINZE_HOME": str(home),
        "QUINZE_CONTEXT_LENGTH": str(CONTEXT),
        "QUINZE_PREFIX_CACHE_BYTES": "2000000",
    }
    subprocess.run(
        [*quinze, "add", str(model), "--name", "soak"], check=True, env=environment, stdout=subprocess.PIPE
    )
    command = [*quinze, "serve", "--port", "0"]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                break
        else:
            sys.exit("The server did not say where it listens.")
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield int(found[1]), process.pid
    finally:
        process.terminate()
        process.wait(30)


def state_of(process: int) -> dict[str, int]:
    """Resident bytes without the mapped files, threads and open files."""
    status = Path(f"/proc/{process}/status").read_text()
    number = {key: int(re.search(rf"{key}:\s+(\d+)", status)[1]) for key in ("RssAnon", "Threads")}  # type: ignore[index]
    return {"bytes": number["RssAnon"] * 1024, "threads": number["Threads"],
            "files": len(list(Path(f"/proc/{process}/fd").iterdir()))}  # fmt: skip


def request_of(draw: random.Random) -> tuple[str, dict[str, Any]]:
    """(path, body) of something that a client may send."""
    length = draw.choice((1, 5, 20, 60, 60, 400, 5000))
    text = " ".join(draw.choices(WORDS, k=length))
    body: dict[str, Any] = {
        "model": "soak", "max_tokens": draw.choice((1, 8, 40, 200)), "temperature": draw.choice((0, 0.8)),
        "stream": draw.random() < 0.6,
    }  # fmt: skip
    if draw.random() < 0.3:
        body["seed"] = draw.randrange(1000)
    if draw.random() < 0.1:
        body["n"] = 2
    if draw.random() < 0.1:
        body["response_format"] = {"type": "regex", "regex": "[a-z ]{1,20}"}
    if draw.random() < 0.3:
        body["context_overflow"] = draw.choice(("drop_oldest", "keep_ends", "error"))
    return "/v1/completions", body | {"prompt": text}


def send(port: int, draw: random.Random) -> str:
    """What became of one request: "whole", "cancelled", "refused 400" or what was wrong."""
    path, body = request_of(draw)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            told = json.loads(answer.read())["error"]
            return f"refused {answer.status}" if told["message"] else "WRONG: an error without words"
        if not body["stream"]:
            return "whole" if json.loads(answer.read())["choices"] else "WRONG: no choices"
        if draw.random() < 0.33:
            answer.read1(draw.choice((1, 200, 2000)))
            return "cancelled"
        return (
            "whole" if answer.read().rstrip().endswith(b"data: [DONE]") else "WRONG: a stream without its end"
        )
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        return f"WRONG: {type(error).__name__}: {error}"
    finally:
        connection.close()


def run(port: int, numbers: range, clients: int) -> Counter[str]:
    found: Counter[str] = Counter()
    lock, left = threading.Lock(), iter(numbers)

    def client() -> None:
        while True:
            with lock:
                number = next(left, None)
            if number is None:
                return
            outcome = send(port, random.Random(number))
            with lock:
                found[outcome] += 1

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=SHARED / "data/models/stories260K.bin")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, served(given.model, Path(home)) as (port, process):
        states, outcomes, began = [state_of(process)], Counter[str](), time.monotonic()
        tenths = [given.requests * tenth // 10 for tenth in range(11)]
        for first, last in itertools.pairwise(tenths):
            outcomes += run(port, range(first, last), given.clients)
            time.sleep(2)  # whatever was cancelled ends within a layer
            states.append(state_of(process))
        seconds = time.monotonic() - began
    print(f"{given.requests:,} requests of {given.clients} clients in {seconds:.0f} s: {dict(outcomes)}")
    for sent, state in zip(tenths, states, strict=True):
        size, threads, files = state["bytes"] / 1e6, state["threads"], state["files"]
        print(f"after {sent:7,}: {size:7.1f} MB, {threads} threads, {files} files open")
    wrong = [outcome for outcome in outcomes if outcome.startswith("WRONG")]
    grown = states[-1]["bytes"] / max(state["bytes"] for state in states[:6])
    print(f"the end beside the most of the first half: {grown:.3f}" + (f"; {wrong}" if wrong else ""))
    return 1 if wrong or grown > GROWTH or states[-1]["files"] > states[5]["files"] + 4 else 0


if __name__ == "__main__":
    sys.exit(main())
