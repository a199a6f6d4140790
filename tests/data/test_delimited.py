"""CSV as spreadsheets write it."""

from pathlib import Path

from common import ROWS, complaint, pairs, put
from penjing.data.read import read


def test_excels_own_line_and_rows_of_empty_cells_are_no_rows(tmp_path: Path) -> None:
    lines = ["sep=;", "text;label;", *(f'"{text}";{label};' for text, label in ROWS), ";;", ";;"]
    rows = read(put(tmp_path, "a.csv", "\ufeff" + "\r\n".join(lines) + "\r\n"))
    assert pairs(rows) == ROWS
    assert any("2 rows hold empty cells only" in note for note in rows.notes)


def test_columns_of_zeros_and_ones_are_offered_together(tmp_path: Path) -> None:
    cells = "".join(f"{i},a text {i},{i % 2},{i // 2 % 2}\n" for i in range(8))
    said = complaint(put(tmp_path, "a.csv", f"id,text,toxic,threat\n{cells}"))
    assert "`label: toxic`, or `label: toxic+threat` with `task: {classify: {multi_label: true}}`" in said
