"""Load a model that you have and let it continue a text, token by token.

python examples/complete.py stories260K.bin "Once upon a time"
"""

from __future__ import annotations

import sys

import quinze


def main(model: str, prompt: str) -> None:
    llm = quinze.LLM(model)
    print(prompt, end="")
    for delta in llm.complete(prompt, max_tokens=64, temperature=0, stream=True):
        print(delta.text, end="", flush=True)
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])
