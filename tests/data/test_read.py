"""Reading rows: every format, every bad input, and the guesses that are told."""

import csv
import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import ROWS, as_csv, complaint, pairs, put
from penjing.data.conll import sentences
from penjing.data.delimited import find_delimiter, has_header
from penjing.data.read import read
from penjing.errors import NotSupported

OBJECTS = [{"text": t, "label": label} for t, label in ROWS]
FORMATS = {
    "a.csv": as_csv(ROWS),
    "a.tsv": as_csv(ROWS, delimiter="\t"),
    "semicolon.csv": as_csv(ROWS, delimiter=";"),
    "bar.csv": as_csv(ROWS, delimiter="|"),
    "list.json": json.dumps(OBJECTS, indent=1, ensure_ascii=False),
    "data.json": json.dumps({"version": 1, "data": OBJECTS}),
    "columns.json": json.dumps({"text": [t for t, _ in ROWS], "label": [x for _, x in ROWS]}),
    "pandas.json": json.dumps({key: {i: row[key] for i, row in enumerate(OBJECTS)} for key in OBJECTS[0]}),
    "pairs.json": json.dumps(ROWS),
    "lines.json": "\n".join(map(json.dumps, OBJECTS)),
    "lines.jsonl": "\n".join(map(json.dumps, OBJECTS)) + "\n\n",
    "tabs.txt": "".join(f"{label}\t{text}\n" for text, label in ROWS),
    "fast.txt": "".join(f"__label__{label} {text}\n" for text, label in ROWS),
    "crlf.csv": as_csv(ROWS).replace("\n", "\r\n"),
    "mark.csv": "\ufeff" + as_csv(ROWS),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    assert pairs(read(put(tmp_path, name, FORMATS[name]))) == ROWS


@pytest.mark.parametrize("name", FORMATS)
def test_packed_files_read_like_plain_ones(tmp_path: Path, name: str) -> None:
    assert pairs(read(put(tmp_path, name + ".gz", gzip.compress(FORMATS[name].encode())))) == ROWS


def test_a_zip_of_one_file_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("inner/a.csv", FORMATS["a.csv"])
    assert pairs(read(tmp_path / "a.zip")) == ROWS


def test_parquet_is_read_and_its_nulls_are_empty(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"id": [1, 2, 3], "text": ["a b", None, "c"], "label": [1.0, 2.0, 0.0]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert "line 2: the text is empty. 1 of 3 rows" in complaint(tmp_path / "a.parquet")
    rows = read(tmp_path / "a.parquet", drop_empty=True)
    assert pairs(rows) == [("a b", "1"), ("c", "0")]
    assert any("1 of 3 rows left out" in note for note in rows.notes)


def test_parquet_from_datasets_has_its_class_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    data.to_parquet(str(tmp_path / "a.parquet"))
    assert pairs(read(tmp_path / "a.parquet")) == [("a", "yes"), ("b", "no")]


def test_a_saved_dataset_is_read_with_its_class_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    datasets.DatasetDict({"train": data, "test": data.select([1])}).save_to_disk(str(tmp_path / "set"))
    assert pairs(read(tmp_path / "set")) == [("a", "yes"), ("b", "no")]
    assert pairs(read(f"{tmp_path / 'set'}#test")) == [("b", "no")]
    assert "Did you mean `test`?" in complaint(f"{tmp_path / 'set'}#tets")


def test_a_hub_set_without_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def fails(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach 'some/set' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", fails)
    assert "save_to_disk" in complaint("hf:some/set:plain:train")


def test_a_folder_of_classes_is_read(tmp_path: Path) -> None:
    put(tmp_path, "set/good/1.txt", "fine\nfilm\n")
    put(tmp_path, "set/bad/2.txt", "weak")
    put(tmp_path, "set/README.md", "about")
    rows = read(tmp_path / "set")
    assert pairs(rows) == [("weak", "bad"), ("fine\nfilm", "good")]
    assert rows.where(1) == f"{tmp_path / 'set' / 'good' / '1.txt'}, line 1"


def test_a_folder_of_parts_asks_for_one(tmp_path: Path) -> None:
    put(tmp_path, "set/train/good/1.txt", "fine")
    put(tmp_path, "set/test/good/1.txt", "fine")
    assert "Give one of them" in complaint(tmp_path / "set")


def test_a_folder_of_tables_is_read_whole_and_its_notes_are_one(tmp_path: Path) -> None:
    for i in range(3):
        put(tmp_path, f"set/shard-{i}.csv", as_csv(ROWS[i : i + 1]))
    rows = read(tmp_path / "set")
    assert pairs(rows) == ROWS
    assert len(rows.notes) == 1
    assert "and 2 more" in rows.notes[0]


def test_globs_and_lists_are_read_in_order(tmp_path: Path) -> None:
    first, second = put(tmp_path, "b1.csv", as_csv(ROWS[:1])), put(tmp_path, "b2.csv", as_csv(ROWS[1:]))
    assert pairs(read(str(tmp_path / "b*.csv"))) == ROWS
    rows = read([str(second), str(first)])
    assert pairs(rows) == ROWS[1:] + ROWS[:1]
    assert rows.where(2) == f"{first}, line 2"


def test_one_text_a_line_is_read_without_labels(tmp_path: Path) -> None:
    rows = read(put(tmp_path, "a.txt", "first, text\n\nsecond text\n"), labelled=False)
    assert rows.texts == ["first, text", "second text"]
    assert rows.labels == [(), ()]
    assert [*rows.lines] == [1, 3]


def test_one_text_a_line_where_labels_are_wanted_says_how_to_give_them(tmp_path: Path) -> None:
    assert "label<TAB>text" in complaint(put(tmp_path, "a.txt", "first text\nsecond text\n"))


def test_unlabelled_rows_may_lack_the_named_label_column(tmp_path: Path) -> None:
    rows = read(put(tmp_path, "a.csv", "text\nhello, you\nbye\n"), label="intent", labelled=False)
    assert rows.texts == ["hello, you", "bye"]


CONLL = "# intent = greet\nHello UH O\nAnn NNP B-PER\n\n# intent = leave\n再 AD O\n见 VV O\n"


def test_conll_sentences_are_rows_with_the_comment_as_label(tmp_path: Path) -> None:
    rows = read(put(tmp_path, "a.conll", CONLL))
    assert pairs(rows) == [("Hello Ann", "greet"), ("再见", "leave")]
    assert [*rows.lines] == [2, 6]


def test_conll_sentences_keep_their_tag_columns(tmp_path: Path) -> None:
    first = next(sentences(put(tmp_path, "a.txt", CONLL)))
    assert first.columns == [["Hello", "Ann"], ["UH", "NNP"], ["O", "B-PER"]]


def test_conll_without_a_column_is_named_by_line(tmp_path: Path) -> None:
    path = put(tmp_path, "a.conll", "Hello O\nAnn\n")
    assert "line 2: 2 columns were wanted" in complaint(path, labelled=False)


def test_lines_inside_quotes_do_not_shift_line_numbers(tmp_path: Path) -> None:
    rows = read(put(tmp_path, "a.csv", 'text,label\n"two\nlines, ""quoted""",a\nplain,b\n'))
    assert rows.texts == ['two\nlines, "quoted"', "plain"]
    assert [*rows.lines] == [2, 4]


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(st.text(st.characters(codec="utf-8", exclude_characters="\0")), st.sampled_from("ab")),
        min_size=2,
    )
)
def test_whatever_csv_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    rows = [
        (text, label)
        for text, label in rows
        if text.strip() and text.strip() not in ("nan", "NaN", "None", "null", "NULL")
    ]
    if not rows:
        return
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    path = put(tmp_path_factory.mktemp("csv"), "a.csv", out.getvalue())
    assert pairs(read(path)) == rows


def test_blank_lines_between_quoted_rows_are_passed_over(tmp_path: Path) -> None:
    rows = read(put(tmp_path, "a.csv", 'text,label\n"one",a\n\n"two",b\n\n'))
    assert rows.texts == ["one", "two"]
    assert [*rows.lines] == [2, 4]


def test_very_long_cells_are_read(tmp_path: Path) -> None:
    text = "long " * 200_000
    assert read(put(tmp_path, "a.csv", f"text,label\n{text},a\nshort,b\n")).texts[0] == text


@pytest.mark.parametrize(("row", "n"), [("too,many,cells", 3), ("few", 1)])
def test_uneven_rows_are_named_and_counted(tmp_path: Path, row: str, n: int) -> None:
    said = complaint(put(tmp_path, "a.csv", f"text,label\na,b\n{row}\nc,d\n"))
    assert f"a.csv, line 3: the row has {n} cell" in said
    assert "1 of 4 rows" in said


def test_quotes_that_never_close_are_named(tmp_path: Path) -> None:
    said = complaint(put(tmp_path, "a.csv", 'text,label\na,b\n"open, c\nd, e, f\n'))
    assert "line 3: the quotation marks" in said


def test_bare_quotes_in_a_tsv_are_plain_signs(tmp_path: Path) -> None:
    rows = read(put(tmp_path, "a.tsv", 'label\ttext\n1\t"open\n0\tshut" now\n1\tplain\n'))
    assert rows.texts == ['"open', 'shut" now', "plain"]
    assert any("quotation marks" in note for note in rows.notes)


@pytest.mark.parametrize("cell", ["", "  ", "nan", "None", "null", "#N/A"])
def test_an_empty_label_is_named_and_counted(tmp_path: Path, cell: str) -> None:
    said = complaint(put(tmp_path, "a.csv", f"text,label\na,x\nb,{cell}\nc,y\nd,{cell}\n"))
    assert "a.csv, line 3: the label is empty" in said
    assert "2 of 4 rows are so; fill them, or pass `drop_empty: true` to leave them out." in said


def test_an_empty_text_is_named_and_counted(tmp_path: Path) -> None:
    assert "line 3: the text is empty. 1 of 3 rows is so" in complaint(
        put(tmp_path, "a.csv", "text,label\na,x\n,y\nb,y\n")
    )


def test_dropped_rows_are_told(tmp_path: Path) -> None:
    rows = read(put(tmp_path, "a.csv", "text,label\na,x\n,y\nb,\n"), drop_empty=True)
    assert pairs(rows) == [("a", "x")]
    assert [note.partition(": ")[2] for note in rows.notes[1:]] == [
        "1 of 3 rows left out, their text is empty",
        "1 of 3 rows left out, their label is empty",
    ]


def test_dropping_everything_is_an_error(tmp_path: Path) -> None:
    assert "all 2 rows" in complaint(put(tmp_path, "a.csv", "text,label\na,\nb,\n"), drop_empty=True)


def test_a_missing_file_offers_the_nearest(tmp_path: Path) -> None:
    put(tmp_path, "tickets.csv", as_csv(ROWS))
    assert "Did you mean `tickets.csv`?" in complaint(tmp_path / "ticket.csv")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert "the folder" in complaint(tmp_path / "nowhere" / "a.csv")


@pytest.mark.parametrize("content", ["", "\n\n"])
@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.json", "a.jsonl", "a.conll"])
def test_an_empty_file_is_an_error(tmp_path: Path, name: str, content: str) -> None:
    assert "is empty" in complaint(put(tmp_path, name, content))


def test_a_header_alone_is_an_error(tmp_path: Path) -> None:
    assert "has a header (text, label) and no rows" in complaint(put(tmp_path, "a.csv", "text,label\n"))


def test_a_broken_json_line_is_named(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": 2}\n{"text": \n')
    assert "a.jsonl, line 3" in complaint(path)


@pytest.mark.parametrize("tail", ["", ', {"text": "b"', ',\n{"text" "b"}]'])
def test_a_broken_json_list_is_named_by_line(tmp_path: Path, tail: str) -> None:
    assert "line " in complaint(put(tmp_path, "a.json", '[{"text": "a", "label": 1}' + tail))


def test_json_elements_keep_the_line_they_begin_on(tmp_path: Path) -> None:
    rows = read(put(tmp_path, "a.json", json.dumps({"note": "x\ny", "data": OBJECTS}, indent=2)))
    assert [*rows.lines] == [4, 8, 12]


def test_several_lists_ask_for_one(tmp_path: Path) -> None:
    path = put(tmp_path, "a.json", json.dumps({"train": ROWS, "test": ROWS[:1]}))
    assert f"`{path}#train`" in complaint(path)
    assert pairs(read(f"{path}#test")) == ROWS[:1]


def test_a_nested_label_is_an_error(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", '{"text": "a", "label": {"x": [1]}}\n{"text": "b", "label": {}}\n')
    assert "line 1: the label in `label` is an object" in complaint(path)


def test_a_spreadsheet_says_how_to_give_it(tmp_path: Path) -> None:
    with pytest.raises(NotSupported, match="Save it as CSV"):
        read(put(tmp_path, "a.xlsx", b"PK\x03\x04"))
    with pytest.raises(NotSupported, match=r"Save its text as \.txt"):
        read(put(tmp_path, "a.docx", b"PK\x03\x04"))


def test_a_cut_short_gz_is_an_error(tmp_path: Path) -> None:
    packed = gzip.compress(as_csv(ROWS * 100).encode())
    assert "cut short" in complaint(put(tmp_path, "a.csv.gz", packed[:-20]))


def test_the_delimiter_is_the_one_that_makes_even_rows() -> None:
    assert find_delimiter(["a;b", "x, y, z;1", "w, v;2", ""]) == ";"


@pytest.mark.parametrize(
    ("rows", "headed"),
    [
        ([["text", "label"], ["a", "b"]], True),
        ([["Quality", "String"], ["1", "a b"], ["0", "c d"]], True),
        ([["anchor", "positive", "neg_1"], ["a b", "c d", "e f"]], True),
        ([["premise", "hypothesis"], ["it rained", "it was wet"]], True),
        ([["前提", "假设"], ["下雨了", "地湿了"]], True),
        ([["句子一", "句子二"], ["下雨了", "地湿了"]], True),
        ([["1", "good film"], ["0", "bad film"], ["1", "fine"]], False),
        ([["terrible", "negative"], ["great", "positive"], ["fine", "positive"]], False),
        ([["good film", "pos"], ["bad film", "neg"], ["fine", "pos"]], False),
    ],
)
def test_a_header_is_told_from_rows(rows: list[list[str]], headed: bool) -> None:
    assert has_header(rows) is headed


REAL = {
    "banking77/train.csv.gz": 10_003,
    "chnsenticorp/train.tsv.gz": 9600,
    "clinc150/data_full.json.gz#train": 15_000,
    "agnews_4k/train.json.gz": 4000,
    "fewclue/tnews/dev_0.json": 240,
    "csl_science/cls_ctg/dev.tsv": 1000,
    "textfooler_1k/snli.txt": 1000,
}


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_real_sets_have_their_published_number_of_rows(shared_data: Path, name: str) -> None:
    rows = read(f"{shared_data}/{name}")
    assert len(rows) == REAL[name]
    assert all(len(labels) == 1 for labels in rows.labels)


@pytest.mark.data
def test_a_conll_set_has_its_published_number_of_sentences(shared_data: Path) -> None:
    assert len(read(shared_data / "conll2003" / "dev.txt.gz", labelled=False)) == 3250
