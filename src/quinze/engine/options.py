"""Options: what may be chosen of the memory for keys and values. Imports nothing heavy."""

from __future__ import annotations

from quinze.errors import InvalidRequestError

KV_TYPES = ("f16", "q8_0", "f32")
DEFAULT_KV_TYPE = "f16"
DEFAULT_PREFIX_BYTES = 2**30
"""For the keys and values of texts that ended, so that others may begin with them."""


def kv_type_of(name: str) -> str:
    """Raises InvalidRequestError for anything that keys and values cannot be kept in."""
    if name not in KV_TYPES:
        raise InvalidRequestError(
            f"kv_cache_type is {name!r}; it must be {', '.join(KV_TYPES[:-1])} or {KV_TYPES[-1]}.",
            hint="q8_0 takes about half the memory of f16.",
            param="kv_cache_type",
        )
    return name
