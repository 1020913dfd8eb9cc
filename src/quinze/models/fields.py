"""Typed look-ups in a stranger's configuration; every error names the field at fault."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from quinze.errors import FileFormatError


class Fields:
    """`values` of the model `name`. A field that is missing, or null, takes its default."""

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self.name, self.values = name, values

    def has(self, field: str) -> bool:
        return self.values.get(field) is not None

    def number(self, field: str, default: int | None = None) -> int:
        value = self._value(field, default)
        # Some GGUF keys hold one number a layer; alike in every layer, they are one number.
        if getattr(value, "ndim", 0) == 1 and value.size and (value == value[0]).all():
            value = value[0].item()
        if type(value) is not int or not 0 <= value < 2**63:
            raise self._wrong(field, value, "a whole number")
        return value

    def real(self, field: str, default: float | None = None) -> float:
        value = self._value(field, default)
        if type(value) not in (int, float) or not math.isfinite(value) or abs(value) > 1e30:
            raise self._wrong(field, value, "a number")
        return float(value)

    def reals(self, field: str) -> tuple[float, ...]:
        value = self._value(field, None)
        if not isinstance(value, list) or len(value) > 2**12:
            raise self._wrong(field, value, "a list of numbers")
        if not all(type(item) in (int, float) and abs(item) <= 1e30 for item in value):
            raise self._wrong(field, value, "a list of numbers")
        return tuple(float(item) for item in value)

    def text(self, field: str) -> str:
        value = self._value(field, None)
        if not isinstance(value, str):
            raise self._wrong(field, value, "a text")
        return value

    def flag(self, field: str, default: bool) -> bool:
        value = self._value(field, default)
        if type(value) is not bool:
            raise self._wrong(field, value, "true or false")
        return value

    def table(self, field: str) -> Mapping[str, Any]:
        value = self._value(field, {})
        if not isinstance(value, dict):
            raise self._wrong(field, value, "a table")
        return value

    def _value(self, field: str, default: Any) -> Any:
        value = self.values.get(field)
        value = default if value is None else value
        if value is None:
            raise FileFormatError(f"The configuration of {self.name} lacks {field}.")
        return value

    def _wrong(self, field: str, value: Any, wanted: str) -> FileFormatError:
        return FileFormatError(f"{field} of {self.name} is {value!r:.60}; it must be {wanted}.")
