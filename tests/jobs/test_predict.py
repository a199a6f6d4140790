"""Answering texts, a file of texts, or a stream."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penjing.errors import DataError, SpecError
from penjing.jobs.predict import AT_ONCE, answers, answers_of_file, answers_to, file_among, lines_of

Tuned = Callable[..., Any]


def test_a_stream_is_answered_in_portions_and_in_order(tuned: Tuned) -> None:
    taken = []

    def stream() -> Iterator[str]:
        for i in range(AT_ONCE + 2):
            taken.append(i)
            yield f"order {i}"

    found = answers(tuned().bundle, stream())
    assert next(found).text == "order 0"
    assert len(taken) == AT_ONCE  # no more than a portion is held
    assert [one.text for one in found][-1] == f"order {AT_ONCE + 1}"


def test_the_bundle_is_opened_only_when_there_is_a_text() -> None:
    def opens() -> Any:
        raise AssertionError("opened")

    with pytest.raises(DataError, match="standard input"):
        list(answers(opens, lines_of(io.BytesIO(b"\n \n"))))


@pytest.mark.parametrize(
    ("text", "wanted"), [(" ", r"' '; a text with words in it"), ("caf\udce9", r".*; a text in UTF-8")]
)
def test_a_text_that_is_none_is_told_whatever_the_task(text: str, wanted: str) -> None:
    with pytest.raises(DataError, match=f"Text 2 of 2 is {wanted} was wanted"):
        answers_to(["hi", text], io.BytesIO(), lambda: pytest.fail("opened"))


def test_lines_are_texts_and_blank_lines_are_none() -> None:
    assert list(lines_of(io.BytesIO("\ufeffa b\r\n\n快递\n".encode()))) == ["a b", "快递"]


def test_a_line_that_is_not_utf_8_is_named() -> None:
    with pytest.raises(DataError, match=r"standard input, line 2: UTF-8 was wanted; byte 1 is 0xff.*iconv"):
        list(lines_of(io.BytesIO(b"good\n\xffbad\n")))


def test_one_name_of_a_file_means_its_rows(tuned: Tuned, tiny_csv: Path) -> None:
    assert file_among([str(tiny_csv)]) == tiny_csv
    assert file_among(["my parcel is late"]) is None
    assert file_among(["a", "b"]) is None
    found = list(answers_of_file(tuned().bundle, tiny_csv))
    assert len(found) == 90
    alone = tuned().bundle.predict([found[0].text])[0]
    assert found[0].answer["label"] == alone["label"]
    assert found[0].answer["confidence"] == pytest.approx(alone["confidence"], rel=1e-4)


def test_a_file_that_is_not_there_is_not_taken_for_a_text(tmp_path: Path) -> None:
    for name in ("tickest.csv", "TICKEST.CSV", str(tmp_path / "new tickest.csv")):
        with pytest.raises(DataError, match="looks like a file of texts, and there is none"):
            file_among([name])
    assert file_among(["why was I sent report.csv"]) is None
    assert file_among(["is it in and/or report.csv"]) is None


def test_files_beside_each_other_are_not_taken_for_texts(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.csv", "b.csv")]
    for file in files:
        file.write_text("text\nlate\n")
    with pytest.raises(DataError, match=r"a\.csv is a file, one of 2 that are given"):
        file_among([str(file) for file in files])
    assert file_among(["nowhere.csv", "late"]) is None


def test_a_folder_is_not_taken_for_a_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is a folder\. Give a file of it"):
        file_among([str(tmp_path)])


@pytest.mark.parametrize(("given", "said"), [(["late", "lost"], "texts"), (None, "lines")])
def test_a_way_to_read_files_is_refused_where_there_is_none(given: Any, said: str) -> None:
    with pytest.raises(
        SpecError, match=rf"`--drop-empty` .* {said} are given.*would be ignored. Leave it out"
    ):
        answers_to(given, io.BytesIO(b"late\n"), lambda: pytest.fail("opened"), drop_empty=True)


def test_a_text_too_long_for_a_file_name_is_a_text() -> None:
    assert file_among(["late " * 20_000]) is None


def test_rows_without_text_are_left_out_when_asked_and_told(
    tuned: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "asked.csv").write_text("id,text\n1,late\n2,\n3,charged twice\n")
    told: list[str] = []
    found = answers_of_file(
        tuned().bundle, tmp_path / "asked.csv", tell=lambda news: told.append(news.text), drop_empty=True
    )
    assert [one.text for one in found] == ["late", "charged twice"]
    assert any("1 of 3 rows left out, their text is empty" in note for note in told)


def test_blank_lines_of_a_stream_are_counted_and_told() -> None:
    said: list[str] = []
    assert list(lines_of(io.BytesIO(b"a\n\nb\n \n"), lambda news: said.append(news.text))) == ["a", "b"]
    assert said == ["2 lines are blank and have no answer"]
    list(lines_of(io.BytesIO(b"a\nb"), lambda news: said.append(news.text)))
    assert len(said) == 1


def test_texts_that_lose_their_ends_are_warned_of(tuned: Tuned, tmp_path: Path) -> None:
    bundle, heard = tuned().bundle, list[str]()
    long, limit = "order " * 2000, tuned().bundle.card["max_length"]
    said = f"{{}} longer than {limit} tokens; {{}} cut"
    file = tmp_path / "texts.txt"
    file.write_text(f"{long}\norder\n{long}\n")
    for given in ([long, "order"], [str(file)], ["order"]):
        found = answers_to(given, io.BytesIO(), lambda: bundle, warn=lambda news: heard.append(news.text))
        assert len(list(found)) >= len(given)
    assert heard == [said.format("1 text is", "its end is"), said.format("2 texts are", "their ends are")]
