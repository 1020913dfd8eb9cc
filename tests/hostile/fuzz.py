"""A fuzzer for what strangers write: GGUF, safetensors, tokenizers, chat templates.

    python tests/hostile/fuzz.py --minutes 60 --findings /tmp/found

Good files are damaged at random and then used as a person would use them: opened, the model loaded, the
tokenizer asked, two tokens generated. Allowed ends are a result or a QuinzeError. Anything else is a finding:
another exception, a death by signal, more than SECONDS or MEMORY. The work happens in child processes, which
are started again. Every case follows from its number alone: `--only gguf:1234` repeats one. Exit code 1 if
anything was found.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

SECONDS = 20
"""Of processor time, for one case; by the clock ten times as many, since the machine may be busy."""
MEMORY = 2 * 2**30
"""Bytes of address space beyond what the child has when it begins."""
CASES_A_CHILD = 400
INTERESTING = (
    0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1,
    2**64 - 1,
)  # fmt: skip


def flip(data: bytearray, at: int, draw: random.Random) -> None:
    data[at] ^= 1 << draw.randrange(8)


def byte(data: bytearray, at: int, draw: random.Random) -> None:
    data[at] = draw.randrange(256)


def number(data: bytearray, at: int, draw: random.Random) -> None:
    size = draw.choice((4, 8))
    data[at : at + size] = (draw.choice(INTERESTING) % 256**size).to_bytes(size, "little")


def lose(data: bytearray, at: int, draw: random.Random) -> None:
    del data[at : at + draw.choice((1, 4, 8, 64))]


def repeat(data: bytearray, at: int, draw: random.Random) -> None:
    start = draw.randrange(at + 1)
    data[at:at] = data[start : start + draw.choice((1, 4, 8, 64))]


def overwrite(data: bytearray, at: int, draw: random.Random) -> None:
    start, length = draw.randrange(at + 1), draw.choice((4, 8, 24, 64))
    data[at : at + length] = data[start : start + length]


def digit(data: bytearray, at: int, draw: random.Random) -> None:
    digits = [i for i in range(at, min(at + 400, len(data))) if 0x30 <= data[i] <= 0x39]
    if digits:
        data[draw.choice(digits)] = draw.choice(b"0123456789-.e")


def cut(data: bytearray, at: int, draw: random.Random) -> None:
    if draw.random() < 0.2:
        del data[at:]


CHANGES = (flip, byte, number, number, lose, repeat, overwrite, digit, digit, cut)


def damage(data: bytes, draw: random.Random, head: int) -> bytes:
    """One to eight small changes, most of them within the first `head` bytes, where the numbers are."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        limit = min(len(changed), head) if draw.random() < 0.9 else len(changed)
        if limit < 16:
            break
        draw.choice(CHANGES)(changed, draw.randrange(limit - 8), draw)
    return bytes(changed)


def use(path: Path) -> None:
    """What a person does with a model: look at it, ask it."""
    from quinze.engine.engine import Engine
    from quinze.engine.sampling import SamplingParams
    from quinze.models.weights import load_model
    from quinze.tokenizer.tokenizer import load_tokenizer

    model = load_model(path)
    ids = [1, 2, 3]
    if path.suffix == ".gguf":
        tokenizer = load_tokenizer(path, model.checkpoint)
        ids = tokenizer.encode("abc 你好 <s>") or ids
        tokenizer.decode(ids)
    engine = Engine(model, context_length=16, threads=1)
    with engine.generate(ids[:8], SamplingParams(temperature=0, max_tokens=2)) as generation:
        list(generation)
    engine.close()


class Files:
    """Damaged copies of good models of several families and formats, in a folder of their own."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder / kind
        self.seeds: list[Path] = sorted((folder / "seeds" / kind).iterdir())

    def case(self, draw: random.Random) -> Callable[[], None]:
        seed = draw.choice(self.seeds)
        shutil.rmtree(self.folder, ignore_errors=True)
        if seed.is_file():
            self.folder.mkdir()
            path = self.folder / seed.name
            data = seed.read_bytes()
            path.write_bytes(damage(data, draw, self.head(data)))
            return lambda: use(path)
        shutil.copytree(seed, self.folder)
        hurt = self.folder / draw.choice(["model.safetensors", "model.safetensors", "config.json"])
        data = hurt.read_bytes()
        hurt.write_bytes(damage(data, draw, self.head(data)))
        return lambda: use(self.folder)

    @staticmethod
    def head(data: bytes) -> int:
        """Bytes before the weights, about."""
        if data[:4] == b"GGUF":
            last = max(data.rfind(b"weight"), data.rfind(b"bias"))
            return last + 64
        return min(len(data), 8 + int.from_bytes(data[:8], "little")) if data[:1] != b"{" else len(data)


class Tokenizers(Files):
    def case(self, draw: random.Random) -> Callable[[], None]:
        from quinze.tokenizer.tokenizer import load_tokenizer

        seed = draw.choice(self.seeds)
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(seed, self.folder)
        hurt = draw.choice(sorted(self.folder.iterdir()))
        data = hurt.read_bytes()
        hurt.write_bytes(damage(data, draw, len(data)))

        def run() -> None:
            tokenizer = load_tokenizer(self.folder)
            ids = tokenizer.encode("abc 12 你好 <s>\n x")
            tokenizer.decode(ids)
            stream = tokenizer.stream()
            for id_ in ids:
                stream.push(id_)

        return run


PIECES = (
    "{% for m in messages %}", "{% endfor %}", "{{ m.content }}", "{{ m['role'] }}", "{% if tools %}",
    "{% endif %}", "{{ messages[0].content | trim }}", "{% set x = 9 ** 9 ** 9 %}", "{{ x * 10 ** 9 }}",
    "{{ ''.__class__.__mro__ }}", "{{ messages | tojson }}", "{{ raise_exception('no') }}", "{{ self }}",
    "{% macro f(a) %}{{ f(a) }}{% endmacro %}{{ f(1) }}", "{{ namespace(a=1).a }}", "{% generation %}",
    "{% endgeneration %}", "{{ '%s' | format(messages) }}", "{# #}", "{%", "%}", "{{ cycler }}",
    "{% break %}",
    "{{ range(10 ** 12) | list }}", "{{ 'a' * 10 ** 10 }}", "{{ strftime_now('%Y') }}", "{% include 'x' %}",
    "{% import 'os' as os %}", "{{ lipsum(10 ** 6) }}", "{{ bos_token ~ eos_token }}",
)  # fmt: skip
ROLES = ("system", "user", "assistant", "tool", "x")
CONTENTS = ("hi", "你好<|im_end|>", "", "{{ 7 * 7 }}")


class Templates:
    """Pieces of real templates and of hostile ones, put together anyhow, and rendered."""

    def __init__(self, folder: Path, kind: str) -> None:
        sources = [path.read_text("utf-8") for path in sorted((folder / "seeds" / kind).iterdir())]
        self.parts = [part for source in sources for part in _cut(source)] + list(PIECES)

    def case(self, draw: random.Random) -> Callable[[], None]:
        from quinze.tokenizer.chat_template import ChatTemplate

        begin = draw.randrange(len(self.parts))
        parts = self.parts[begin : begin + draw.choice((1, 5, 40, 200))]
        for _ in range(draw.choice((0, 1, 2, 6))):
            parts.insert(draw.randrange(len(parts) + 1), draw.choice(self.parts))
            if draw.random() < 0.3:
                del parts[draw.randrange(len(parts))]
        messages = [
            {"role": draw.choice(ROLES), "content": draw.choice(CONTENTS)}
            for _ in range(draw.choice((1, 2, 5)))
        ]

        def run() -> None:
            template = ChatTemplate("".join(parts), control_tokens=["<|im_end|>", "</s>"], seconds=1.0)
            try:
                text = "".join(piece for piece, _ in template.render(messages))
                assert "49" not in text or "49" in "".join(parts), "a message was run as a template"
            finally:
                template._child.close()

        return run


def _cut(source: str) -> list[str]:
    parts, start = [], 0
    for at, (a, b) in enumerate(itertools.pairwise(source), 1):
        if a + b in ("%}", "}}"):
            parts.append(source[start : at + 1])
            start = at + 1
    return [*parts, source[start:]]


class Planted:
    """For the fuzzer's own test: what it must find."""

    def __init__(self, folder: Path, kind: str) -> None:
        pass

    def case(self, draw: random.Random) -> Callable[[], None]:
        number = draw.randrange(6)
        return [lambda: None, lambda: os.kill(os.getpid(), signal.SIGSEGV), lambda: [][0], lambda: None,
                lambda: None, lambda: bytearray(2**40) and None][number]  # fmt: skip


TARGETS: dict[str, Callable[[Path, str], Files | Templates | Planted]] = {
    "gguf": Files, "safetensors": Files, "tokenizer": Tokenizers, "template": Templates, "planted": Planted,
}  # fmt: skip


def child(target: str, begin: int, count: int, folder: Path) -> None:
    """Run the cases one after the other; a line before each, a word behind those that worked."""
    from quinze.errors import QuinzeError

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    work = TARGETS[target](folder, target)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for number in range(begin, begin + count):
        case = work.case(random.Random(f"{target}:{number}"))
        print(number, flush=True)
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(10 * SECONDS)
        try:
            with contextlib.suppress(QuinzeError):
                case()
                print("worked", flush=True)
        except BaseException:  # noqa: BLE001 - whatever it is, it is a finding
            print(traceback.format_exc(), file=sys.stderr, flush=True)
            sys.exit(70)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def run(target: str, begin: int, count: int, folder: Path) -> tuple[int, int, str]:
    """(cases that were run, those that worked all the same, what was wrong with the last one or "")."""
    command = [sys.executable, __file__, "--child", f"{target}:{begin}:{count}", "--work", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
    worked = done.stdout.count("worked")
    ran = len(done.stdout.split()) - worked
    return ran, worked, _what_was_wrong(done.returncode, done.stderr)


def _what_was_wrong(code: int, said: str) -> str:
    if code == 0:
        return ""
    if code in (-signal.SIGPROF, -signal.SIGALRM):
        return f"took more than {SECONDS} seconds"
    if code < 0:
        return f"died of {signal.Signals(-code).name}\n{said[-2000:]}"
    return said[-4000:] or f"exit code {code}"


def fuzz(
    targets: list[str], minutes: float, folder: Path, start: int, cases: int
) -> Iterator[tuple[str, int, int, str]]:
    """(target, cases, those that worked, finding or "") after every child, each target in its turn."""
    at = dict.fromkeys(targets, start)
    deadline = time.monotonic() + minutes * 60
    while time.monotonic() < deadline and (due := [t for t in targets if at[t] < start + cases]):
        for target in due:
            begin = at[target]
            count = min(CASES_A_CHILD if deadline - time.monotonic() > 120 else 40, start + cases - begin)
            ran, worked, wrong = run(target, begin, count, folder)
            at[target] += max(ran, 1)
            yield target, ran, worked, wrong and f"{target}:{at[target] - 1}\n{wrong}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--targets", default="gguf,safetensors,tokenizer,template")
    parser.add_argument("--cases", type=int, default=10**9, help="at most so many of each target")
    parser.add_argument("--start", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", help="one case, such as gguf:1234, in this process")
    parser.add_argument("--findings", type=Path, help="write each finding here")
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("QUINZE_SHARED", "../shared")))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        target, begin, count = given.child.split(":")
        child(target, int(begin), int(count), given.work)
        return 0
    counts: Counter[str] = Counter()
    fine: Counter[str] = Counter()
    found: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.targets != "planted":
            from fuzz_seeds import make_seeds

            make_seeds(folder, given.shared)
        if given.only:
            target, number = given.only.split(":")
            child(target, int(number), 1, folder)
            return 0
        targets = given.targets.split(",")
        for target, ran, worked, finding in fuzz(targets, given.minutes, folder, given.start, given.cases):
            counts[target] += ran
            fine[target] += worked
            if finding:
                found.append(finding)
                print(finding, flush=True)
                if given.findings:
                    with given.findings.open("a", encoding="utf-8") as out:
                        out.write(finding + "\n\n")
    each = ", ".join(f"{target} {count:,} ({fine[target]:,} worked)" for target, count in counts.items())
    print(f"{counts.total():,} cases ({each}), {len(found)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
