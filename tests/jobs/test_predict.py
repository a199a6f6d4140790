"""Answering texts, a file of texts, or a stream."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penjing.errors import DataError
from penjing.jobs.predict import AT_ONCE, answers, lines_of, texts_of

Tuned = Callable[..., Any]


def test_a_stream_is_answered_in_portions_and_in_order(tuned: Tuned) -> None:
    taken = []

    def stream() -> Iterator[str]:
        for i in range(AT_ONCE + 2):
            taken.append(i)
            yield f"order {i}"

    found = answers(tuned().bundle, stream())
    assert next(found)[0] == "order 0"
    assert len(taken) == AT_ONCE  # no more than a portion is held
    assert [text for text, _ in found][-1] == f"order {AT_ONCE + 1}"


def test_the_bundle_is_opened_only_when_there_is_a_text() -> None:
    def opens() -> Any:
        raise AssertionError("opened")

    with pytest.raises(DataError, match="standard input"):
        list(answers(opens, lines_of(io.BytesIO(b"\n \n"))))


def test_lines_are_texts_and_blank_lines_are_none() -> None:
    assert list(lines_of(io.BytesIO("\ufeffa b\r\n\n快递\n".encode()))) == ["a b", "快递"]


def test_a_line_that_is_not_utf_8_is_named() -> None:
    with pytest.raises(DataError, match=r"standard input, line 2: UTF-8 was wanted; byte 1 is 0xff.*iconv"):
        list(lines_of(io.BytesIO(b"good\n\xffbad\n")))


def test_one_name_of_a_file_means_its_texts(tiny_csv: Path) -> None:
    assert len(texts_of([str(tiny_csv)])) == 90
    assert texts_of(["my parcel is late"]) == ["my parcel is late"]
    assert texts_of(["a", "b"]) == ["a", "b"]


def test_a_file_that_is_not_there_is_not_taken_for_a_text() -> None:
    with pytest.raises(DataError, match="looks like a file of texts, and there is none"):
        texts_of(["tickest.csv"])


def test_a_text_too_long_for_a_file_name_is_a_text() -> None:
    assert texts_of(["late " * 20_000]) == ["late " * 20_000]
