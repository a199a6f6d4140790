"""Encodings found by evidence, and bytes that break them named by line."""

import codecs
from pathlib import Path

import pytest

from penjing.data.encoding import encoding_of_names, find_encoding
from penjing.data.read import read
from penjing.errors import DataError

CHINESE = (
    "text,label\n我的快递还没有到，请帮我查一下。,物流\n账单多扣了一次钱,账单\n密码忘记了怎么办？,账号\n"
)
FRENCH = (
    "text,label\nJe n’ai pas reçu ma carte,délai\nC’est très cher à l’étranger,prix\nOù est le café ?,lieu\n"
)
GERMAN = "text,label\nDie Überweisung wurde abgelehnt,Zahlung\nMeine Straße ist falsch,Adresse\n"


def put(folder: Path, content: bytes) -> Path:
    path = folder / "a.csv"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "codec", ["utf-8", "utf-8-sig", "gb18030", "gbk", "utf-16", "utf-32", "utf-16-le", "utf-16-be"]
)
def test_chinese_is_read_in_every_encoding(tmp_path: Path, codec: str) -> None:
    text = CHINESE if not codec.startswith("utf-16-") else CHINESE.replace("我", "x" * 200)
    rows = read(put(tmp_path, text.encode(codec)))
    assert rows.labels == [("物流",), ("账单",), ("账号",)]


@pytest.mark.parametrize("text", [FRENCH, GERMAN])
@pytest.mark.parametrize("codec", ["utf-8", "cp1252", "utf-16"])
def test_western_text_is_read_in_every_encoding(tmp_path: Path, text: str, codec: str) -> None:
    rows = read(put(tmp_path, text.encode(codec)))
    assert rows.texts == [line.split(",")[0] for line in text.splitlines()[1:]]


def test_a_legacy_encoding_is_told(tmp_path: Path) -> None:
    assert any("GB18030" in note for note in read(put(tmp_path, CHINESE.encode("gbk"))).notes)
    assert any("CP1252" in note for note in read(put(tmp_path, FRENCH.encode("cp1252"))).notes)


def test_utf_8_is_not_told(tmp_path: Path) -> None:
    assert find_encoding(put(tmp_path, CHINESE.encode())) == ("utf-8", "")


def test_mostly_english_text_with_some_chinese_is_gb18030(tmp_path: Path) -> None:
    text = "text,label\n" + "a plain line,x\n" * 50 + "这个产品 is good,y\n退款 please,y\n"
    assert find_encoding(put(tmp_path, text.encode("gbk")))[0] == "gb18030"


def test_a_broken_byte_in_utf_8_is_named(tmp_path: Path) -> None:
    lines = CHINESE.encode().split(b"\n")
    lines[2] = b"caf\xe9 latte,drinks"
    with pytest.raises(DataError, match=r"a\.csv, line 3: byte 0xe9 .*encoding: "):
        read(put(tmp_path, b"\n".join(lines)))


def test_a_named_encoding_is_taken(tmp_path: Path) -> None:
    path = put(tmp_path, "text,label\nкарта,а\nсчёт,б\n".encode("cp1251"))
    assert read(path, encoding="cp1251").texts == ["карта", "счёт"]


def test_an_encoding_that_fits_nothing_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Say which with `encoding:`"):
        read(put(tmp_path, "text,label\nгде моя карта,а\nпочему списали деньги,б\n".encode("cp1251")))


def test_a_wrong_named_encoding_is_told_by_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 2: byte"):
        read(put(tmp_path, CHINESE.encode("gbk")), encoding="utf-8")


def test_an_unknown_encoding_offers_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Did you mean `gb18030`"):
        read(put(tmp_path, b"text\na\n"), encoding="gb18031")


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="another kind of file"):
        read(put(tmp_path, bytes(range(256)) * 20))


def test_marks_alone_do_not_hide_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty"):
        read(put(tmp_path, codecs.BOM_UTF8))


def test_traditional_chinese_is_big5(tmp_path: Path) -> None:
    text = "週一，市議會表決通過了重建舊橋的方案。工程將於明年春天開工，預計需要兩年時間。\n" * 3
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode("big5"))
    assert find_encoding(path)[0] == "big5hkscs"
    path.write_bytes("It was 20 °C, and “warm” – so they said.\n".encode("cp1252"))
    assert find_encoding(path)[0] == "cp1252"


def test_bytes_that_windows_does_not_have_make_it_latin_1(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("Une école près de l'été\n".encode("latin-1") * 9 + b"a \x81 b\n")
    assert find_encoding(path)[0] == "latin-1"


def test_a_broken_byte_far_into_ascii_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penjing.data.encoding._EVIDENCE", 64)
    path = tmp_path / "a.txt"
    path.write_bytes(b"plain text\n" * 10 + "café\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"line 11: byte 0xe9 \(byte 114 of the file\) is not UTF-8"):
        find_encoding(path)
    assert find_encoding(path, strict=False)[0] == "utf-8"


@pytest.mark.parametrize(
    ("names", "encoding"),
    [
        (("猫咪/图1.png", "小狗/图2.png", "a.png"), "gb18030"),
        (("猫咪/图1.png", "été/1.png"), "utf-8"),
        (("été/café.png", "forêt/âge.png", "Übung/1.png"), "cp437"),
        (("cat/1.png",), "utf-8"),
    ],
)
def test_names_of_a_zip_say_what_they_are_in(names: tuple[str, ...], encoding: str) -> None:
    assert encoding_of_names([name.encode(encoding) for name in names]) == encoding
