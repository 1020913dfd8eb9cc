"""JSON in and out of requests: strict in what is taken in, careful in what is sent.

Given bytes and the msgspec type that they must have. Invalid UTF-8, lone surrogates, NaN, numbers out of
range and deep nesting are refused, with the place of the fault.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from starlette.responses import Response

from quinze.errors import InvalidRequestError

T = TypeVar("T")


class Json(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return encode(content)


def encode(content: Any) -> bytes:
    """Compact UTF-8. A file name that is no valid Unicode is shown with replacement characters."""
    try:
        return msgspec.json.encode(content, enc_hook=str)
    except UnicodeEncodeError:
        return msgspec.json.encode(_cleaned(msgspec.to_builtins(content, enc_hook=str)))


def decode(body: bytes, kind: type[T]) -> T:
    """`body` as a `kind`, or InvalidRequestError that names the field."""
    try:
        # Unknown fields are skipped by msgspec unread: their bytes must be text all the same.
        body.decode("utf-8")
        return msgspec.json.decode(body, type=kind)
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"The body is not valid UTF-8 (byte {error.start:,}).", hint="Send JSON as UTF-8."
        ) from None
    except msgspec.ValidationError as error:
        fault, _, place = str(error).partition(" - at `")
        param = place.rstrip("`").removeprefix("$").lstrip(".") or _missing(fault)
        raise InvalidRequestError(f"{param}: {fault}." if param else f"{fault}.", param=param) from None
    except msgspec.DecodeError as error:
        raise InvalidRequestError(f"The body is not valid JSON: {error}.") from None
    except RecursionError:
        raise InvalidRequestError("The body is nested too deeply.") from None


def _missing(fault: str) -> str | None:
    """The name in "Object missing required field `model`"."""
    return fault.split("`")[1] if fault.startswith("Object missing required field `") else None


def _cleaned(content: Any) -> Any:
    if isinstance(content, str):
        return content.encode("utf-8", "replace").decode()
    if isinstance(content, dict):
        return {_cleaned(key): _cleaned(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_cleaned(value) for value in content]
    return content
