"""Numbers written otherwise: what a Chinese reader writes is read back, and the reverse."""

from __future__ import annotations

import pytest

from quinze.knowledge.numerals import han_number, months, numbers_in_digits, numbers_in_han


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (18, "十八"),
        (105, "一百零五"),
        (2500, "二千五百"),
        (10_001, "一万零一"),
        (1_250_000, "一百二十五万"),
        (300_000_000, "三亿"),
    ],
)
def test_a_number_is_written_and_read_as_in_chinese(value: int, written: str) -> None:
    assert han_number(value) == written
    assert list(numbers_in_han(f"共{written}个")) == [(written, str(value))]


@pytest.mark.parametrize("value", [*range(11, 2000, 7), 10_010, 99_999, 1_000_001, 120_000_003])
def test_what_is_written_is_read_back(value: int) -> None:
    assert [digits for _, digits in numbers_in_han(han_number(value))] == [str(value)]


def test_thousands_are_written_with_either_two() -> None:
    assert list(numbers_in_digits("after 2,500 hours")) == [("2500", ("二千五百", "两千五百"))]


def test_part_numbers_and_decimals_are_no_whole_numbers() -> None:
    assert list(numbers_in_digits("007, 3.14 and 1.250,00")) == []


def test_months_are_named_in_either_language() -> None:
    assert list(months("on 14 March, 12月, 十一月")) == [
        ("3", "march"),
        ("12", "december"),
        ("11", "november"),
    ]
