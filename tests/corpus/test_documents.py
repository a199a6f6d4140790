"""Documents of every kind of raw file; what is none is told by name, in bounded memory, and nothing is
lost.
"""

import gzip
import io
import json
import lzma
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common import put
from penjing.corpus import asked
from penjing.corpus.documents import Document, documents
from penjing.corpus.inputs import Piece, files_of, parts_of
from penjing.corpus.lines import blocks
from penjing.errors import DataError


def read(path: Path | str, **settings: Any) -> list[Document]:
    spec = asked.read(raw=str(path), **settings)
    parts = parts_of(files_of(spec), spec)
    return [found for part in parts for piece in part.pieces for found in documents(piece, spec)]


def texts(path: Path | str, **settings: Any) -> list[str]:
    return [found.text.strip() for found in read(path, **settings)]


def troubles(path: Path | str, **settings: Any) -> list[tuple[str, str]]:
    return [(found.where, found.trouble) for found in read(path, **settings) if found.trouble]


TWO = "one\nmore of one\n\n\ntwo 中文\n"


def test_plain_text_is_parted_by_empty_lines_by_lines_or_not_at_all(tmp_path: Path) -> None:
    path = put(tmp_path, "a.txt", TWO)
    assert texts(path) == ["one\nmore of one", "two 中文"]
    assert texts(path, documents="line") == ["one", "more of one", "two 中文"]
    assert texts(path, documents="file") == [TWO.strip()]
    assert [found.where for found in read(path)] == ["a.txt:1", "a.txt:5"]


def packed_zstd(raw: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(raw, asbytes=True))


@pytest.mark.parametrize(
    ("name", "pack"), [("a.txt.gz", gzip.compress), ("a.txt.xz", lzma.compress), ("a.txt.zst", packed_zstd)]
)
def test_packed_text_is_unpacked_and_a_cut_one_told(tmp_path: Path, name: str, pack: Any) -> None:
    raw = pack("".join(f"{i} {TWO}\n" for i in range(500)).encode())
    assert len(texts(put(tmp_path, name, raw))) == 1000
    cut = put(tmp_path, f"cut-{name}", raw[: len(raw) // 2])
    assert troubles(cut)[-1] == (f"cut-{name}", "unreadable_file")


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "utf-8-sig"])
def test_encodings_are_found_out(tmp_path: Path, encoding: str) -> None:
    text = "报告将在年底之前公布，委员会表示。\n\n我们的产品是最好的，欢迎大家。\n"
    assert texts(put(tmp_path, "a.txt", text.encode(encoding))) == [
        part.strip() for part in text.split("\n\n")
    ]


def test_a_line_in_another_encoding_is_left_out_and_told(tmp_path: Path) -> None:
    raw = (
        "好的文本在这里。\n\n".encode() * 20
        + "坏的一行".encode("gb18030")
        + b"\n\n"
        + "后面还有。\n".encode()
    )
    path = put(tmp_path, "mixed.txt", raw)
    assert troubles(path) == [("mixed.txt:41", "undecodable")]
    assert texts(path)[-1] == "后面还有。"


def test_json_lines_keep_the_good_lines_of_a_broken_file(tmp_path: Path) -> None:
    lines = ['{"text": "one"}', '{"text": "tw', '{"text": 3}', "", '{"text": "half \\ud800 pair"}']
    path = put(tmp_path, "a.jsonl", "\n".join(lines))
    assert texts(path) == ["one", "", "", "half ? pair"]
    assert troubles(path) == [("a.jsonl:2", "broken_line"), ("a.jsonl:3", "no_text")]


def test_a_column_that_is_not_there_is_told_with_the_nearest(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", '{"txt": "one"}\n')
    assert "has txt" in read(path)[0].why
    assert "Did you mean `txt`" in read(path, text="txts")[0].why
    assert texts(path, text="txt") == ["one"]


def test_rows_of_one_file_may_bear_their_text_under_different_names(tmp_path: Path) -> None:
    rows = [{"meta": 1}, {"content": "one"}, {"Text": "two"}, ["no row"], {"text": "three", "content": "no"}]
    path = put(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert [text for text in texts(path) if text] == ["one", "two", "three"]
    assert troubles(path) == [("a.jsonl:1", "no_column"), ("a.jsonl:4", "no_text")]
    assert texts(put(tmp_path, "a.csv", "Id,TEXT\n1,one\n")) == ["one"]


def test_parquet_and_tables_are_read_by_their_text_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2], "content": ["one", None]}), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet") == ["one", ""]
    assert texts(put(tmp_path, "a.csv", "id,text\n1,one\n2,two\n")) == ["one", "two"]
    assert troubles(put(tmp_path, "b.parquet", b"PAR1 and no more"))[0][1] == "unreadable_file"


def test_a_web_page_is_its_text_without_menus_and_scripts(tmp_path: Path) -> None:
    page = """<!doctype html><html><head><title>Harbour</title><script>var a = "no";</script></head><body>
    <nav><a href="/">Home</a> <a href="/x">About</a></nav><div><a href="/1">One</a> <a href="/2">Two</a></div>
    <p>The harbour &amp; the <b>town</b>
    were quiet.</p><ul><li>A boat</li></ul><pre>x = 1
    y</pre><footer>All rights reserved</footer></body></html>"""
    assert texts(put(tmp_path, "a.html", page)) == [
        "Harbour\nThe harbour & the town were quiet.\nA boat\nx = 1\n    y"
    ]


@pytest.mark.parametrize(
    ("said", "codec", "text"),
    [
        ("gb2312", "gb18030", "工程将于明年春天开工，預計需要两年时间。"),
        ("big5", "big5", "週一，市議會表決通過了重建舊橋的方案。"),
        ("Shift_JIS", "cp932", "これは日本語の文章です。"),
        ("windows-1251", "cp1251", "Это простой русский текст."),
        ("ISO-8859-1", "cp1252", "Das heißt “schön”."),
    ],
)
def test_a_web_page_is_read_in_the_encoding_that_it_says(
    tmp_path: Path, said: str, codec: str, text: str
) -> None:
    head = f'<html><head><meta http-equiv="Content-Type" content="text/html; charset={said}"></head>'
    path = put(tmp_path, "a.html", f"{head}<body><p>{text}</p></body></html>".encode(codec))
    assert texts(path) == [text]
    lying = put(tmp_path, "b.html", f"{head}<body><p>{text}</p></body></html>".encode())
    assert texts(lying) == [text]


def test_a_web_page_may_lack_ends_and_stand_in_a_form(tmp_path: Path) -> None:
    page = """<body><form id="all"><div><nav><ul><li><a href="/">Home</a></ul></div><a name="top"><article>
    <header><h1>Head</h1></header><p>One <a href="/1">link</a> of<p>two</form></article></body>"""
    assert texts(put(tmp_path, "a.html", page)) == ["Head\nOne link of\ntwo"]
    endless = "<b><i>x</i>" * 20_000 + "</p>" * 20_000
    assert len(texts(put(tmp_path, "b.html", endless))[0]) == 20_000


def test_a_notebook_is_what_was_written_into_its_cells(tmp_path: Path) -> None:
    printed = [{"data": {"image/png": "A" * 99}}]
    cells = [
        {"cell_type": "markdown", "source": ["# Bridges\n", "of the town"]},
        {"cell_type": "code", "source": "x = 1", "outputs": printed},
        {"cell_type": "raw", "source": "no"},
    ]
    assert texts(put(tmp_path, "a.ipynb", json.dumps({"cells": cells}))) == [
        "# Bridges\nof the town\n\nx = 1"
    ]
    assert troubles(put(tmp_path, "b.ipynb", "[1]")) == [("b.ipynb", "unreadable_file")]


def test_the_lines_of_old_macs_are_lines(tmp_path: Path) -> None:
    path = put(tmp_path, "a.txt", b"one\rmore\r\rtwo\r" * 3)
    assert texts(path) == ["one\nmore", "two\none\nmore", "two\none\nmore", "two"]
    assert texts(path, part_mib=1e-5) == texts(path)
    assert texts(put(tmp_path, "a.jsonl", '{"text": "a"}\r{"text": "b"}')) == ["a", "b"]


def test_all_of_a_file_is_gone_over_once_to_find_its_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, "a.txt", "plain text of a line\n\n" * 200)
    looked: list[Path] = []

    def look(path: Path, **settings: Any) -> tuple[str, str]:
        looked.append(path)
        return "utf-8", ""

    monkeypatch.setattr("penjing.corpus.codec.find_encoding", look)
    assert len(read(path, part_mib=1e-4)) == 200
    assert len(looked) == 1


def test_code_is_one_document_a_file(tmp_path: Path) -> None:
    put(tmp_path, "src/a.py", "import os\n\n\nprint(os)\n")
    assert texts(tmp_path / "src") == ["import os\n\n\nprint(os)"]


def a_pdf(text: str) -> bytes:
    """The smallest PDF with one line of text, or with none."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode() if text else b""
    bodies = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    raw, places = b"%PDF-1.4\n", []
    for i, body in enumerate(bodies, start=1):
        places.append(len(raw))
        raw += b"%d 0 obj%s endobj\n" % (i, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(raw)
    return raw + b"xref\n0 6\n0000000000 65535 f \n" + table + end


def test_a_pdf_is_its_text_layer_and_one_without_is_told(tmp_path: Path) -> None:
    pytest.importorskip("pypdf")
    assert texts(put(tmp_path, "a.pdf", a_pdf("Text of a page"))) == ["Text of a page"]
    assert troubles(put(tmp_path, "b.pdf", a_pdf(""))) == [("b.pdf", "no_text_layer")]
    assert troubles(put(tmp_path, "c.pdf", b"%PDF-1.4 junk")) == [("c.pdf", "unreadable_file")]


def test_empty_and_binary_files_are_told_by_name(tmp_path: Path) -> None:
    put(tmp_path, "raw/empty.txt", "")
    put(tmp_path, "raw/junk.txt", bytes(range(256)) * 50)
    assert troubles(tmp_path / "raw") == [("empty.txt", "empty_file"), ("junk.txt", "unreadable_file")]


def test_a_document_of_an_office_is_told_and_costs_no_other_file(tmp_path: Path) -> None:
    put(tmp_path, "raw/a.txt", "text")
    put(tmp_path, "raw/b.docx", b"PK\x03\x04" + bytes(60))
    (good, told) = read(tmp_path / "raw")
    assert good.text.strip() == "text"
    assert told.trouble == "unreadable_file"
    assert "Save its text as .txt" in told.why


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_line_of_any_length_is_passed_over_in_bounded_memory(tmp_path: Path, name: str) -> None:
    good = '{"text": "good"}\n' if name.endswith("jsonl") else "good\n\n"
    path = tmp_path / name
    with path.open("w") as out:
        out.write(good)
        for _ in range(40):
            out.write("x" * 2**20)
        out.write("\n\n" + good)
    tracemalloc.start()
    found = read(path, longest=10_000, part_mib=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [f.trouble for f in found] == ["", "too_long", ""]
    assert peak < 12 * 2**20


def cut(path: Path, part_mib: float) -> Iterator[str]:
    for found in read(path, part_mib=part_mib, longest=1000):
        yield found.trouble or found.text.strip()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_file_cut_into_pieces_gives_every_document_once(tmp_path: Path, name: str, end: str) -> None:
    bodies = [f"number {i} " + "word " * (i * 7 % 40) for i in range(400)]
    if name.endswith("jsonl"):
        raw = end.join(json.dumps({"text": body}) for body in bodies) + end
    else:
        raw = (end * 2).join(body.strip() + end + "second line" for body in bodies)
    path = put(tmp_path, name, raw)
    whole = list(cut(path, 10))
    assert len(whole) == 400
    for size in (700, 1000, 1537, 9001):
        assert list(cut(path, size / 2**20)) == whole, size


def blocks_by_line(raw: bytes, begin: int, end: int | None, most: int) -> Iterator[tuple[str, bytes | None]]:
    """Documents of the bytes [begin, end), found a line at a time."""
    at = number = 0
    mine, block, start = begin == 0, b"", 0
    for line in io.BytesIO(raw):
        begins, at = at, at + len(line)
        if begins < begin:
            continue
        number += 1
        if line.replace(b"\xe3\x80\x80", b"").strip(b" \t\r\n\xef\xbb\xbf"):
            start = start if block else number
            block += line
            continue
        if mine and block:
            yield f"{begin}+{start}" if begin else str(start), block if len(block) <= most else None
        if end is not None and begins >= end:
            return
        mine, block = True, b""
    if mine and block:
        yield f"{begin}+{start}" if begin else str(start), block if len(block) <= most else None


@pytest.mark.parametrize("window", [1, 2, 5, 64, 1000])
def test_documents_are_those_found_a_line_at_a_time(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penjing.corpus.lines._WINDOW", window)
    rng = random.Random(window)
    words = [
        b"a",
        b"bcd ",
        b"e" * 9,
        b"\n",
        b"\n",
        b"\n\n",
        b"\n \t\n",
        b"\r\n\r\n",
        b"  ",
        b"\n\xef\xbb\xbf\n",
        b"\n\xe3\x80\x80 \xe3\x80\x80\n",
    ]
    for _ in range(150):
        raw = b"".join(rng.choices(words, k=rng.randint(0, 40)))
        for begin, end in (
            (0, None),
            (0, len(raw) // 2),
            (len(raw) // 2, None),
            (len(raw) // 3, len(raw) // 2),
        ):
            piece = Piece("", "", "", "text", begin, end)
            expected = list(blocks_by_line(raw, begin, end, 20))
            assert list(blocks(io.BytesIO(raw), piece, 20)) == expected, (raw, begin, end)


def test_sources_are_sub_folders_or_the_first_part_of_a_name(tmp_path: Path) -> None:
    for name in ("news/a.txt", "news/deep/b.txt", "wiki.train.txt", ".hidden/c.txt"):
        put(tmp_path, f"raw/{name}", "x\n")
    spec = asked.read(raw=str(tmp_path / "raw"))
    assert [(f.source, f.name) for f in files_of(spec)] == [
        ("news", "news/a.txt"),
        ("news", "news/deep/b.txt"),
        ("wiki", "wiki.train.txt"),
    ]
    named = asked.read(raw={"all": str(tmp_path / "raw" / "**" / "*.txt")})
    assert {f.source for f in files_of(named)} == {"all"}


def test_a_path_that_leads_nowhere_offers_the_nearest(tmp_path: Path) -> None:
    put(tmp_path, "news.txt", "x\n")
    with pytest.raises(DataError, match=r"there is no file\. Did you mean `news\.txt`"):
        files_of(asked.read(raw=str(tmp_path / "newz.txt")))
