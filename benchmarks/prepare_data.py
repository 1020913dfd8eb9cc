"""What does it cost to turn a corpus into rows, beside encoding it and nothing else?

python benchmarks/prepare_data.py CORPUS.jsonl.xz TOKENIZER [--fields text] [--workers 2]

Prepares the corpus (read, cleaned, near duplicates, split, leaks, encoded, written) in a fresh process; then
`tokenizers` encodes the same texts, one at a time on one thread. Processor time, and the most memory of a
process.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from quinze.training.data.manifest import PrepareSettings
from quinze.training.data.prepare import prepare
from quinze.training.data.sources import Source, read_file, text_of


def ours(corpus: Path, tokenizer: Path, fields: tuple[str, ...], workers: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = PrepareSettings(text_fields=fields, workers=workers)
        report = prepare([Source.of(corpus)], tokenizer, Path(folder) / "data", settings)
    manifest = report.manifest
    size = sum(split.bytes for split in manifest.splits.values())
    print(f"documents {manifest.sources[0].documents:,}, kept {manifest.sources[0].kept:,}, {size:,} bytes")
    for reason, dropped in manifest.dropped.items():
        print(f"  {reason}: {dropped.count:,}")
    print(f"  13-grams of validation that training has: {manifest.leaked:.2%}")


def theirs(corpus: Path, tokenizer: Path, fields: tuple[str, ...]) -> None:
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    for record in read_file(corpus):
        backend.encode(text_of(record, fields), add_special_tokens=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--fields", nargs="*", default=[])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", choices=["ours", "theirs"])
    options = parser.parse_args()
    fields = tuple(options.fields)
    if options.only == "ours":
        return ours(options.corpus, options.tokenizer, fields, options.workers)
    if options.only == "theirs":
        return theirs(options.corpus, options.tokenizer, fields)
    print(platform.platform(), platform.python_version(), f"{os.cpu_count()} cores")
    for who in ("ours", "theirs"):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.monotonic()
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        subprocess.run([sys.executable, *sys.argv, "--only", who], check=True, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        wall, most = time.monotonic() - began, after.ru_maxrss / 1024
        print(f"{who}: {spent:.1f} s of processor, {wall:.1f} s by the clock, {most:.0f} MB in a process")
    return None


if __name__ == "__main__":
    main()
