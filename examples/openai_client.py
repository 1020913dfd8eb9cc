"""Talk to a running `quinze serve` with the official OpenAI client.

quinze serve &
python examples/openai_client.py stories260K "Once upon a time"
"""

from __future__ import annotations

import os
import sys

from openai import OpenAI


def main(model: str, prompt: str) -> None:
    address = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:1515/v1")
    client = OpenAI(base_url=address, api_key="unused")
    stream = client.completions.create(model=model, prompt=prompt, max_tokens=32, temperature=0, stream=True)
    for chunk in stream:
        print(chunk.choices[0].text if chunk.choices else "", end="", flush=True)
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])
