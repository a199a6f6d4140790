"""CSV as spreadsheets write it."""

from pathlib import Path

from common import ROWS, complaint, pairs, put
from penjing.data.read import read


def test_excels_own_line_and_rows_of_empty_cells_are_no_rows(tmp_path: Path) -> None:
    lines = ["sep=;", "text;label;", *(f'"{text}";{label};' for text, label in ROWS), ";;", ";;"]
    rows = read(put(tmp_path, "a.csv", "\ufeff" + "\r\n".join(lines) + "\r\n"))
    assert pairs(rows) == ROWS
    assert any("2 rows hold empty cells only" in note for note in rows.notes)


def test_a_delimiter_at_the_end_of_all_rows_but_the_header_makes_no_cell(tmp_path: Path) -> None:
    lines = ["text,label", *(f'"{text}",{label},' for text, label in ROWS)]
    rows = read(put(tmp_path, "a.csv", "\n".join(lines)))
    assert pairs(rows) == ROWS
    assert any("all rows but the first end with a delimiter more" in note for note in rows.notes)


def test_a_delimiter_at_the_end_of_one_row_is_told(tmp_path: Path) -> None:
    said = complaint(put(tmp_path, "a.csv", "text,label\na text,x\nhello, world,\nb text,y\n"))
    assert "a.csv, line 3: the row has 3 cells, the first row has 2. 1 of 4 rows is so" in said


def test_columns_of_zeros_and_ones_are_offered_together(tmp_path: Path) -> None:
    cells = "".join(f"{i},a text {i},{i % 2},{i // 2 % 2}\n" for i in range(8))
    said = complaint(put(tmp_path, "a.csv", f"id,text,toxic,threat\n{cells}"))
    assert "`label: toxic`, or `label: toxic+threat` with `task: {classify: {multi_label: true}}`" in said


def test_columns_of_one_name_are_told(tmp_path: Path) -> None:
    rows = read(put(tmp_path, "a.csv", "label_3,text,label,label\na,x,b,c\nd,y,e,f\n"), label="label")
    assert rows.labels == [("b",), ("e",)]
    assert any("columns of one name are told apart by their places: label_4" in note for note in rows.notes)
    rows = read(put(tmp_path, "b.csv", "text_3,label,text\nx,a,z\n,b,z\n"), text="text")
    assert rows.texts == ["z", "z"]
    rows = read(put(tmp_path, "c.csv", "text,text_3,text,label\nx,y,z,a\nx,y,w,b\n"), text="text_3_3")
    assert rows.texts == ["z", "w"]
