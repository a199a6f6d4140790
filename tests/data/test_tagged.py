"""Rows with entities: every format read as it is, and what cannot be as it is written told or mended."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from common import entities_of, put
from penjing.data.entities import characters_of, words_of
from penjing.data.read import read as read_texts
from penjing.data.tagged import asked, read
from penjing.errors import DataError
from penjing.records import Rows

CONLL = "-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\nPeter NNP B-PER\nB NNP I-PER\n\nBonn NNP B-LOC\n"
TEXT = "EU rejects Peter B"
WANTED = [("EU", "ORG"), ("Peter B", "PER")]


def words(rows: Rows, row: int = 0) -> list[str]:
    item = (rows.items or [])[row]
    return [item.text[a:b] for a, b in item.words]


def lines(folder: Path, *rows: Any) -> Path:
    return put(folder, "rows.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        ("I-ORG O I-PER I-PER", "BIO1"),
        ("S-ORG O B-PER E-PER", "BIOES"),
        ("U-ORG O B-PER L-PER", "BIOES"),
        ("S_ORG O B_PER E_PER", "BIOES"),
        ("ORG O PER PER", "IO"),
    ],
)
def test_schemes_are_found_out_and_told(tags: str, scheme: str, tmp_path: Path) -> None:
    body = "".join(f"{token}\t{tag}\n" for token, tag in zip(TEXT.split(), tags.split(), strict=True))
    rows = read(put(tmp_path, "a.conll", body))
    assert entities_of(rows) == WANTED
    assert scheme in rows.notes[0]


def test_a_folder_of_parallel_files_has_intents_too(tmp_path: Path) -> None:
    put(tmp_path, "seq.out.gz", gzip.compress(b"O B-song I-song\nO O\n"))
    put(tmp_path, "seq.in", "play hey jude\nwhat now\n")
    put(tmp_path, "label", "Play\nAsk\n")
    rows = read(tmp_path, intent=True)
    assert (entities_of(rows), rows.labels) == ([("hey jude", "song")], [("Play",), ("Ask",)])
    assert read_texts(tmp_path).labels == [("Play",), ("Ask",)]  # and classify reads it as texts and intents


def test_an_entity_of_several_labels_is_one_of_each(tmp_path: Path) -> None:
    path = lines(tmp_path, {"text": TEXT, "entities": [{"start": 0, "end": 2, "labels": ["ORG", "GPE"]}]})
    assert entities_of(read(path, overlaps=True)) == [("EU", "GPE"), ("EU", "ORG")]
    with pytest.raises(DataError, match=r"line 1: `EU` \(ORG\) overlaps another entity"):
        read(path)


@pytest.mark.parametrize(
    "entities",
    [
        [{"start": 0, "end": 2, "label": "ORG"}, {"start": 11, "end": 18, "label": "PER"}],
        [{"start_offset": 0, "end_offset": 2, "type": "ORG"},
         {"start_offset": 11, "end_offset": 18, "type": "PER"}],
        [{"start_idx": 0, "end_idx": 1, "type": "ORG", "entity": "EU"},
         {"start_idx": 11, "end_idx": 17, "type": "PER", "entity": "Peter B"}],
        [[0, 2, "ORG"], [11, 18, "PER"]],
        {"ORG": {"EU": [[0, 1]]}, "PER": {"Peter B": [[11, 17]]}},
    ],
)  # fmt: skip
@pytest.mark.parametrize("column", ["entities", "label"])
def test_spans_are_read_in_the_usual_forms(entities: Any, column: str, tmp_path: Path) -> None:
    rows = read(lines(tmp_path, {"text": TEXT, column: entities}, {"text": "nothing here", column: []}))
    assert (entities_of(rows), entities_of(rows, 1)) == (WANTED, [])


@pytest.mark.parametrize(("tokens", "tags"), [("tokens", "ner_tags"), ("words", "labels"), ("text", "label")])
def test_lists_of_tokens_and_tags_are_read(tokens: str, tags: str, tmp_path: Path) -> None:
    row = {tokens: TEXT.split(), tags: ["B-ORG", "O", "B-PER", "I-PER"]}
    assert entities_of(read(lines(tmp_path, row, row))) == WANTED


def test_numbered_tags_of_a_parquet_file_have_the_names_of_its_schema(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ["O", "B-ORG", "B-PER", "I-PER"]
    features = {"ner_tags": {"_type": "Sequence", "feature": {"_type": "ClassLabel", "names": names}}}
    table = pa.table({"tokens": [TEXT.split()], "ner_tags": [[1, 0, 2, 3]]})
    about = json.dumps({"info": {"features": features}})
    pq.write_table(table.replace_schema_metadata({"huggingface": about}), tmp_path / "a.parquet")
    assert entities_of(read(tmp_path / "a.parquet")) == WANTED


def test_numbered_tags_without_names_are_told(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"line 1: tags by name were wanted in `ner_tags`; there is 3.*Write the names"
    ):
        read(lines(tmp_path, *[{"tokens": ["EU"], "ner_tags": [3]}] * 2))


def test_texts_to_predict_need_no_entities(tmp_path: Path) -> None:
    rows = read(put(tmp_path, "a.txt", "EU rejects.\nBonn too\n"), labelled=False)
    assert (rows.texts, words(rows)) == (["EU rejects.", "Bonn too"], ["EU", "rejects", "."])


def test_inputs_are_texts_or_tokens() -> None:
    rows = asked(["Bonn, 上海", ["Bonn", ",", "上", "海"], {"tokens": ["Bonn"]}, {"text": "Bonn"}])
    assert [words(rows, i) for i in range(4)] == [["Bonn", ",", "上", "海"]] * 2 + [["Bonn"]] * 2
    with pytest.raises(DataError, match=r"item 1 of 1 is int '3'"):
        asked([3])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The U.N. met J. Smith (again).", ["The", "U.N.", "met", "J.", "Smith", "(", "again", ")", "."]),
        ("Peter's all-rounder, 1996-08-30!", ["Peter", "'s", "all-rounder", ",", "1996-08-30", "!"]),
        ("@rosa likes #bonn $5", ["@rosa", "likes", "#bonn", "$", "5"]),
        ("在NBA打球，2比1。", ["在", "NBA", "打", "球", "，", "2", "比", "1", "。"]),
        ("... ok", [".", ".", ".", "ok"]),
        ("", []),
    ],
)  # fmt: skip
def test_running_text_is_cut_into_words_as_corpora_are(text: str, wanted: list[str]) -> None:
    assert [text[a:b] for a, b in words_of(text)] == wanted


def test_characters_are_all_but_blanks() -> None:
    assert characters_of("a 上") == ((0, 1), (2, 3))


# ---- bad input


BAD_SPANS: list[tuple[list[Any], str, list[tuple[str, str]]]] = [
    ([[0, 200, "ORG"]], r"`ORG` \(ORG\) at 0–200, of a text of 18 characters", []),
    ([[2, 2, "ORG"]], r"at 2–2", []),
    ([{"start": 5, "end": 7, "label": "ORG", "text": "EU"}], r"`EU` .* at 5–7, where 'je'", [("EU", "ORG")]),
    ([{"start": 0, "end": 2, "label": "ORG", "text": "UN"}], r"`UN` .* at 0–2, where 'EU' stands", []),
    ([[0, 18, "ORG"], [11, 16, "PER"]], r"`Peter` \(PER\) overlaps another", [(TEXT, "ORG")]),
]  # fmt: skip


@pytest.mark.parametrize(("entities", "text", "kept"), BAD_SPANS)
def test_spans_that_cannot_be_are_told_with_their_place_or_mended(
    entities: list[Any], text: str, kept: Sequence[Any], tmp_path: Path
) -> None:
    path = lines(tmp_path, {"text": "fine", "entities": []}, {"text": TEXT, "entities": entities})
    with pytest.raises(DataError, match=rf"rows.jsonl, line 2: .*{text}.*In all 1 entity.*repair: true"):
        read(path)
    rows = read(path, repair=True)
    assert entities_of(rows, 1) == kept
    assert any("1 entity" in note and "repair" in note for note in rows.notes)


def test_overlaps_are_kept_where_they_may_be(tmp_path: Path) -> None:
    row = {"text": TEXT, "entities": [[0, 18, "ORG"], [11, 16, "PER"]]}
    path = lines(tmp_path, row, row)
    assert entities_of(read(path, overlaps=True)) == [(TEXT, "ORG"), ("Peter", "PER")]


@pytest.mark.parametrize(
    ("tag", "text", "kept"),
    [
        ("I-LOC", "`I-LOC` stands behind `O`", [("a", "PER"), ("c", "LOC")]),
        ("X-LOC", "none of the prefixes .*", [("a", "PER")]),
    ],
)  # fmt: skip
def test_tags_that_contradict_are_counted_and_named_with_their_line(
    tag: str, text: str, kept: list[tuple[str, str]], tmp_path: Path
) -> None:
    path = put(tmp_path, "a.conll", f"a B-PER\nb O\nc {tag}\n\n" + "d B-LOC\ne I-LOC\n" * 10)
    with pytest.raises(
        DataError, match=rf"a.conll, line 3: .*{text} \(token `c`\).*In all 1 tag.*repair: true"
    ):
        read(path)
    assert entities_of(read(path, repair=True)) == kept


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, r"line 1: a tag a token was wanted; there are 2 .* 1 tags"),
        ({"text": "abc", "entities": [{"from": 1}]}, r"line 1: entities were wanted as .*\{'from': 1\} st"),
        ({"text": "  ", "entities": [[0, 1, "X"]]}, r"line 1: the text is empty.*drop_empty"),
        ({"tokens": ["", ""], "tags": ["O", "O"]}, r"line 1: the text is empty"),
        ({"text": "abc", "score": "x"}, r"which column holds the tags or the entities.*`text` .*label:"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_read_say_why(row: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=text):
        read(lines(tmp_path, row, row))


def test_tags_of_a_text_without_tokens_are_told(tmp_path: Path) -> None:
    row = {"text": "abc de", "tags": ["O"]}
    with pytest.raises(DataError, match=r"line 1: .*it has 1, and `text` 2 words and 6 characters.*`text:`"):
        read(lines(tmp_path, row, row), label="tags")


@pytest.mark.parametrize(
    ("text", "tags", "wanted"),
    [
        ("EU rejects Peter B", "B-ORG O B-PER I-PER", WANTED),
        ("李雷 来", "B-PER I-PER O O", [("李雷", "PER")]),  # a tag a character, the blank's too
        ("李雷 来", "B-PER I-PER O", [("李雷", "PER")]),
    ],
)
def test_tags_of_a_text_are_of_its_words_or_its_characters(
    text: str, tags: str, wanted: list[tuple[str, str]], tmp_path: Path
) -> None:
    rows = read(lines(tmp_path, *[{"text": text, "labels": tags.split()}] * 2))
    assert (rows.texts[0], entities_of(rows)) == (text, wanted)


@pytest.mark.parametrize("tags", ["b-org o b-per i-per", "B-ORG _ B-PER I-PER", "B-ORG 0 B-PER I-PER"])
def test_tags_written_otherwise_are_understood_and_told(tags: str, tmp_path: Path) -> None:
    body = "".join(f"{token} {tag}\n" for token, tag in zip(TEXT.split(), tags.split(), strict=True))
    rows = read(put(tmp_path, "a.conll", body))
    assert [(text, label.upper()) for text, label in entities_of(rows)] == WANTED
    assert f"`{tags.split()[1]}` is O" in rows.notes[0]


def test_a_token_may_be_a_number_of_json(tmp_path: Path) -> None:
    row = {"tokens": ["in", 1996, None], "tags": ["O", "B-YEAR", "O"]}
    assert entities_of(read(lines(tmp_path, row, row))) == [("1996", "YEAR")]


def test_empty_rows_are_left_out_when_asked_and_counted(tmp_path: Path) -> None:
    rows = read(
        lines(tmp_path, {"text": "", "entities": []}, {"text": "EU", "entities": [[0, 2, "X"]]}),
        drop_empty=True,
    )
    assert rows.texts == ["EU"]
    assert any("1 rows left out" in note for note in rows.notes)


def test_a_delimiter_would_be_ignored(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`data.delimiter`.*ignored"):
        read(put(tmp_path, "a.conll", CONLL), delimiter="|")


def test_an_intent_that_is_missing_is_told(tmp_path: Path) -> None:
    row = {"tokens": ["a"], "tags": ["B-X"], "intent": None}
    with pytest.raises(DataError, match=r"line 1: one intent was wanted in `intent`; there is None"):
        read(lines(tmp_path, row, row), intent="intent")


def test_a_folder_of_brats_has_a_document_a_row_and_tells_what_it_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Anna went to\nParis.\n", encoding="utf-8")
    lines = ["T1\tPER 0 4\tAnna", "T2\tLOC 13 18\tParis", "T3\tPER 0 2;3 4\tAn a", "R1\tIn Arg1:T1 Arg2:T2"]
    (tmp_path / "a.ann").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = read(tmp_path)
    assert entities_of(rows) == [("Anna", "PER"), ("Paris", "LOC")]
    assert any("left out: 1 entities of several pieces" in note for note in rows.notes)


def test_each_document_of_brats_is_named_by_its_own_file(tmp_path: Path) -> None:
    for name, found in (("a", "Anna"), ("b", "Bert")):
        (tmp_path / f"{name}.txt").write_text("Anna came", encoding="utf-8")
        (tmp_path / f"{name}.ann").write_text(f"T1\tPER 0 4\t{found}\n", encoding="utf-8")
    rows = read(tmp_path, repair=True)
    assert [rows.where(i) for i in range(2)] == [f"{tmp_path / name}.txt, line 1" for name in "ab"]
    with pytest.raises(DataError, match=r"b\.txt, line 1: `Bert` \(PER\) at 0–4, where 'Anna' stands"):
        read(tmp_path)


def test_a_broken_line_of_brats_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Anna", encoding="utf-8")
    (tmp_path / "a.ann").write_text("T1 PER 0 4 Anna\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.ann, line 1: an entity such as"):
        read(tmp_path)


def test_a_table_with_a_token_a_row_is_sentences(tmp_path: Path) -> None:
    cells = "1,Anna,NNP,B-per\n,left,VBD,O\n2,She,PRP,O\n,saw,VBD,O\n,Bob,NNP,B-per\n"
    path = tmp_path / "ner.csv"
    path.write_text(f"Sentence #,Word,POS,Tag\n{cells}", encoding="utf-8")
    rows = read(path)
    assert rows.texts == ["Anna left", "She saw Bob"]
    assert rows.where(1) == f"{path}, line 4"
    assert [entities_of(rows, row) for row in range(2)] == [[("Anna", "per")], [("Bob", "per")]]


def test_spans_in_the_way_of_spacy_2_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([["Anna left", {"entities": [[0, 4, "PER"]]}]] * 2), encoding="utf-8")
    assert entities_of(read(path)) == [("Anna", "PER")]


@pytest.mark.parametrize("place", [(3, 8), ("3", "8"), (3.0, 8.0), (3, 7)])
def test_places_in_utf_16_units_as_numbers_or_texts_are_turned_and_told(
    place: tuple[Any, Any], tmp_path: Path
) -> None:
    entity = {"start": place[0], "end": place[1], "text": "Peter", "label": "PER"}
    rows = read(lines(tmp_path, {"text": "😀 Peter in Berlin", "entities": [entity]}))
    assert entities_of(rows) == [("Peter", "PER")]
    assert "1 row with places in UTF-16 units" in rows.notes[-1]


def test_places_in_characters_behind_an_emoji_stay(tmp_path: Path) -> None:
    entity = {"start": 2, "end": 7, "text": "Peter", "label": "PER"}
    rows = read(lines(tmp_path, {"text": "😀 Peter in Berlin", "entities": [entity]}))
    assert (entities_of(rows), [n for n in rows.notes if "UTF" in n]) == ([("Peter", "PER")], [])


def test_an_empty_cell_of_entities_holds_none_and_is_counted(tmp_path: Path) -> None:
    rows = read(put(tmp_path, "a.csv", 'text,entities\nPeter here,"[[0,5,""PER""]]"\nnobody,\n'))
    assert entities_of(rows) == [("Peter", "PER")]
    assert "1 row with an empty cell of entities: taken to hold none" in rows.notes
    some, none = {"text": "Peter", "entities": [[0, 5, "PER"]]}, {"text": "x", "entities": float("nan")}
    assert len(read(lines(tmp_path, some, none))) == 2


def test_a_place_that_is_no_whole_number_is_refused(tmp_path: Path) -> None:
    row = {"text": "Peter", "entities": [{"start": 0.5, "end": 5, "label": "PER"}]}
    with pytest.raises(DataError, match=r"the place 0.5 stands"):
        read(lines(tmp_path, row))


def test_tags_with_their_prefix_behind_are_understood_and_told(tmp_path: Path) -> None:
    rows = read(put(tmp_path, "a.conll", "王 PER-B\n明 PER-I\n在 O\n北 LOC-B\n京 LOC-I\n"))
    assert entities_of(rows) == [("王明", "PER"), ("北京", "LOC")]
    assert "tags are read as BIO2 (`LOC-B` is B-LOC" in rows.notes[0]


def test_spans_of_label_studio_are_read(tmp_path: Path) -> None:
    value = {"start": 0, "end": 4, "text": "Anna", "labels": ["PER"]}
    result = {"type": "labels", "from_name": "who", "value": value}
    task = {"data": {"text": "Anna left"}, "annotations": [{"result": [result]}]}
    path = tmp_path / "a.json"
    path.write_text(json.dumps([task, {**task, "annotations": [{"result": []}]}]), encoding="utf-8")
    assert [len(item.entities) for item in read(path).items or []] == [1, 0]


def test_tasks_of_label_studio_that_nobody_labelled_are_left_out_and_counted(tmp_path: Path) -> None:
    span = {"start": 0, "end": 2, "text": "EU", "labels": ["ORG"]}
    done = [{"result": [{"type": "labels", "from_name": "label", "value": span}]}]
    tasks = [
        {"data": {"text": "EU ran"}, "annotations": done},
        {"data": {"text": "EU stood"}, "annotations": []},
        {"data": {"text": "EU sat"}, "annotations": [{**done[0], "was_cancelled": True}]},
        {"data": {"text": "nobody"}, "annotations": [{"result": []}]},  # looked at: it holds none
    ]
    path = put(tmp_path, "a.json", json.dumps(tasks))
    rows = read(path)
    assert rows.texts == ["EU ran", "nobody"]
    assert any("2 of 4 rows left out, nobody labelled them" in note for note in rows.notes)
    assert len(read(path, labelled=False)) == 4
