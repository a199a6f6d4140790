"""Pairs of replies read from the usual forms, and those that cannot be used."""

import json
from pathlib import Path
from typing import Any

import pytest

from common import put, told
from penjing.data.messages import Conversation, Message
from penjing.data.preferences import Preference, read
from penjing.errors import DataError

ASKED = {"role": "user", "content": "hi"}
GOOD, BAD = {"role": "assistant", "content": "yes ?"}, {"role": "assistant", "content": "no"}
WANTED = Preference(
    Conversation((Message("user", "hi"),)), Message("assistant", "yes ?"), Message("assistant", "no")
)


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "hi", "chosen": "yes ?", "rejected": "no"},
        {"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD]},
        {"messages": [ASKED], "chosen": "yes ?", "rejected": "no"},
        {"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
        {"chosen": "\n\nHuman: hi\n\nAssistant: yes ?", "rejected": "\n\nHuman: hi\n\nAssistant: no"},
        {"conversations": [{"from": "human", "value": "hi"}], "chosen": {"from": "gpt", "value": "yes ?"},
         "rejected": {"from": "gpt", "value": "no"}},
    ],
)  # fmt: skip
def test_usual_forms_are_read(row: dict[str, Any], tmp_path: Path) -> None:
    assert read(put(tmp_path, "a.jsonl", lines(row, row))).items == [WANTED] * 2


@pytest.mark.parametrize(
    ("row", "flaw"),
    [
        ({"prompt": "hi", "chosen": "no", "rejected": " no"}, "`chosen` equals `rejected`"),
        ({"prompt": "hi", "chosen": "", "rejected": "no"}, "with `chosen` the reply in message 2 is empty"),
        ({"prompt": [ASKED, GOOD], "chosen": [GOOD], "rejected": [BAD]}, "roles are out of order"),
    ],
)
def test_pairs_that_cannot_be_used_are_told_or_left_out(
    row: dict[str, Any], flaw: str, tmp_path: Path
) -> None:
    good = {"prompt": "hi", "chosen": "yes ?", "rejected": "no"}
    path = put(tmp_path, "a.jsonl", lines(good, row))
    with pytest.raises(DataError) as error:
        read(path)
    told(error, "line 2", "a better and a worse reply was wanted", flaw, "1 of 2", "`repair: true`")
    rows = read(path, repair=True)
    assert len(rows) == 1
    assert any("1 of 2 pairs left out" in note for note in rows.notes)


def test_what_stands_before_both_replies_is_kept(tmp_path: Path) -> None:
    """An input, a history, earlier turns and calls of tools are what a reply answers to."""
    call = {"function": {"name": "find", "arguments": {}}}
    lead = [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "12"}]
    rule = {"role": "system", "content": "s"}
    rows: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
        ({"instruction": "say", "input": "hi"}, [("user", "say\nhi")]),
        ({"instruction": "hi", "input": float("nan"), "history": [["a", "b"]]},
         [("user", "a"), ("assistant", "b"), ("user", "hi")]),
        ({"prompt": "hi", "chosen": [ASKED, BAD, ASKED, GOOD], "rejected": [ASKED, BAD, ASKED, BAD]},
         [("user", "hi"), ("assistant", "no"), ("user", "hi")]),
        ({"prompt": [rule, ASKED], "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
         [("system", "s"), ("user", "hi")]),
        ({"prompt": "hi", "chosen": [*lead, GOOD], "rejected": [*lead, BAD]},
         [("user", "hi"), ("assistant", ""), ("tool", "12")]),
    ]  # fmt: skip
    for row, wanted in rows:
        whole = {"chosen": "yes ?", "rejected": "no", **row}
        (one,) = read(put(tmp_path, "a.jsonl", lines(whole))).items or []
        assert [(m.role, m.content) for m in one.asked.messages] == wanted
        assert (one.chosen.content, one.rejected.content) == ("yes ?", "no")


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"prompt": "hi", "chosen": [BAD, ASKED, GOOD], "rejected": [BAD]}, "differ before their last reply"),
        ({"prompt": "ha", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]}, "does not hold what is asked"),
        ({"prompt": "hi", "chosen": "yes", "rejected": float("nan")}, "the reply in message 2 is empty"),
        ({"prompt": "hi", "chosen": "yes", "rejected": None}, "a reply is missing"),
    ],
)
def test_a_pair_that_would_lose_a_part_is_told(row: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=text):
        read(put(tmp_path, "a.jsonl", lines(row)))


def test_columns_that_are_not_there_are_told(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", lines({"prompt": "hi", "good": "x"}, {"prompt": "hi", "good": "x"}))
    with pytest.raises(DataError, match=r"`chosen` and `rejected`; columns are prompt, good"):
        read(path)


@pytest.mark.data
def test_real_pairs_are_read(shared_data: Path) -> None:
    for language in ("en", "zh"):
        rows = read(shared_data / "sft_dpo_demo" / f"dpo_{language}_demo.json.gz", repair=True)
        assert len(rows) > 290


def test_replies_may_be_numbers(tmp_path: Path) -> None:
    row = {"prompt": 6, "chosen": 1, "rejected": 0}
    (one,) = read(put(tmp_path, "a.jsonl", json.dumps(row))).items or ()
    assert (one.asked.messages[0].content, one.chosen.content, one.rejected.content) == ("6", "1", "0")
