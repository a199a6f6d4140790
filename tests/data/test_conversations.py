"""Conversations read from the usual forms, and those that cannot be used."""

import json
from pathlib import Path
from typing import Any

import pytest

from common import put, told
from penjing.data.conversations import asked, read
from penjing.data.messages import Conversation, Message
from penjing.data.taught import talks
from penjing.errors import DataError

PLAIN = (Message("user", "hi"), Message("assistant", "yes ?"))


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def messages(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


def one(folder: Path, row: dict[str, Any], **keys: Any) -> Conversation:
    found = (read(put(folder, "a.jsonl", lines(row, row)), **keys).items or [])[0]
    assert isinstance(found, Conversation)
    return found


@pytest.mark.parametrize(
    ("row", "form"),
    [
        (messages(("user", "hi"), ("assistant", "yes ?")), "OpenAI"),
        ({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes ?"}]},
         "ShareGPT"),
        ({"instruction": "hi", "input": "", "output": "yes ?"}, "Alpaca"),
        ({"prompt": "hi", "completion": "yes ?"}, "a prompt (`prompt`) and a reply (`completion`) a row"),
        ({"question": "hi", "answer": "yes ?"}, "a prompt (`question`) and a reply (`answer`) a row"),
        ({"问题": "hi", "回答": "yes ?"}, "a prompt (`问题`) and a reply (`回答`) a row"),
        ({"prompt": messages(("user", "hi"))["messages"],
          "completion": messages(("assistant", "yes ?"))["messages"]},
         "a prompt (`prompt`) and a reply (`completion`) a row"),
    ],
)  # fmt: skip
def test_usual_forms_are_found_out_and_told(row: dict[str, Any], form: str, tmp_path: Path) -> None:
    assert one(tmp_path, row) == Conversation(PLAIN)
    notes = read(tmp_path / "a.jsonl").notes
    assert any(f"conversations in the form of {form}" in note for note in notes)


def test_alpacas_input_system_and_history_are_read(tmp_path: Path) -> None:
    row = {
        "system": "be brief",
        "instruction": "add",
        "input": "1 2",
        "output": "3",
        "history": [["hi", "yes ?"]],
    }
    wanted = (Message("system", "be brief"), *PLAIN, Message("user", "add\n1 2"), Message("assistant", "3"))
    assert one(tmp_path, row).messages == wanted


def test_what_is_not_a_number_is_no_text(tmp_path: Path) -> None:
    """pandas writes so what is missing, and `nan` would be learned as a word."""
    whole = read(put(tmp_path, "a.csv", "instruction,input,output\nhi,nan,None\nhi,,b\n")).items or []
    assert [one.messages for one in whole] == [
        (Message("user", "hi"), Message("assistant", said)) for said in ("None", "b")
    ]
    assert one(tmp_path, {"instruction": "hi", "input": float("nan"), "output": "yes ?"}).messages == PLAIN
    with pytest.raises(DataError, match="the reply in message 2 is empty"):
        one(tmp_path, {"instruction": "hi", "output": float("nan")})


def test_tool_calls_are_read_in_both_forms(tmp_path: Path) -> None:
    call = {"name": "find", "arguments": {"what": "fee"}}
    tools = [{"name": "find"}]
    openai = {
        "messages": [
            {"role": "user", "content": "fee ?"},
            {"role": "assistant", "content": None, "tool_calls": [
                {"type": "function", "function": {"name": "find", "arguments": '{"what": "fee"}'}}]},
            {"role": "tool", "content": "2"},
            {"role": "assistant", "content": "two"},
        ],
        "tools": tools,
    }  # fmt: skip
    sharegpt = {
        "conversations": [
            {"from": "human", "value": "fee ?"},
            {"from": "function_call", "value": json.dumps(call)},
            {"from": "observation", "value": "2"},
            {"from": "gpt", "value": "two"},
        ],
        "tools": json.dumps(tools),
    }
    found = one(tmp_path, openai)
    assert found == one(tmp_path, sharegpt)
    assert found.messages[1] == Message("assistant", "", (("find", '{"what": "fee"}'),))
    assert found.tools == ('{"name": "find"}',)


def test_messages_in_the_cells_of_a_csv_are_read(tmp_path: Path) -> None:
    turns = messages(("user", "hi"), ("assistant", "yes ?"))["messages"]
    for cell in (json.dumps(turns).replace('"', '""'), repr(turns)):
        assert (read(put(tmp_path, "a.csv", f'messages\n"{cell}"\n')).items or [])[0] == Conversation(PLAIN)
    table = 'instruction,output,history\nhi,yes ?,[]\nhi,yes ?,"[[""a"", ""b""]]"\n'
    first, second = read(put(tmp_path, "b.csv", table)).items or ()
    assert first == Conversation(PLAIN)
    assert second == Conversation((Message("user", "a"), Message("assistant", "b"), *PLAIN))
    named = put(tmp_path, "c.csv", "q,a\nhi,yes ?\n")
    assert (read(named, text="q", label="a").items or [])[0] == Conversation(PLAIN)


def test_a_reply_of_weight_0_is_marked_and_counted(tmp_path: Path) -> None:
    row = messages(("user", "hi"), ("assistant", "no"), ("user", "hi"), ("assistant", "yes ?"))
    row["messages"][1]["weight"] = 0
    rows = read(put(tmp_path, "a.jsonl", lines(row, row)))
    assert [m.learned for m in (rows.items or [])[0].messages] == [True, False, True, True]
    assert rows.notes[-1] == "2 replies of weight 0: read, and not learned"
    (kept, _) = talks().asked(rows)
    assert kept["messages"][1]["weight"] == 0  # written down, it stays so


def test_columns_can_be_named(tmp_path: Path) -> None:
    assert one(tmp_path, {"q": "hi", "a": "yes ?"}, text="q", label="a") == Conversation(PLAIN)
    with pytest.raises(DataError) as error:
        read(put(tmp_path, "b.jsonl", lines({"q": "hi", "a": "x"}, {"q": "hi", "a": "x"})))
    told(error, "conversations were wanted", "columns are q, a", "`text:` and `label:`")


@pytest.mark.parametrize(
    ("row", "flaw"),
    [
        (messages(("user", "hi"), ("assistant", " ")), "the reply in message 2 is empty"),
        (messages(("user", " "), ("assistant", "x")), "the question in message 1 is empty"),
        (messages(("user", "hi")), "there is no reply, only one side speaks"),
        (messages(("assistant", "hi")), "nobody asks, only one side speaks"),
        (messages(("user", "a"), ("system", "b"), ("assistant", "c")), "message 2 is `system`"),
        (messages(("tool", "a"), ("system", "s"), ("user", "b"), ("assistant", "c")), "message 1 is `tool`"),
        (messages(("usser", "a"), ("assistant", "c")), "said by 'usser'. Did you mean `user`?"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]},
         "all replies have the weight 0"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 2}]},
         "the weight 2; 0 or 1 were wanted"),
    ],
)  # fmt: skip
def test_a_conversation_that_cannot_be_used_is_told_or_left_out(
    row: dict[str, Any], flaw: str, tmp_path: Path
) -> None:
    good = messages(("user", "hi"), ("assistant", "yes ?"))
    path = put(tmp_path, "a.jsonl", lines(good, row))
    with pytest.raises(DataError) as error:
        read(path)
    told(error, "line 2", "questions and replies was wanted", flaw, "1 of 2", "`repair: true`")
    rows = read(path, repair=True)
    assert len(rows) == 1
    assert any("1 of 2 conversations left out" in note for note in rows.notes)


def test_messages_of_one_side_in_a_row_are_one_where_rows_are_repaired(tmp_path: Path) -> None:
    row = messages(("用户", "hi"), ("用户", "there"), ("客服", "yes ?"), ("客服", "go on"), ("客服", " "))
    with pytest.raises(
        DataError, match=r"message 2 is `user`, behind `user` stands assistant.*in a row become one"
    ):
        one(tmp_path, row)
    assert one(tmp_path, row, repair=True).messages == (
        Message("user", "hi\nthere"), Message("assistant", "yes ?\ngo on"),
    )  # fmt: skip
    assert "2 conversations in which one side speaks several times in a row" in str(
        read(tmp_path / "a.jsonl", repair=True).notes
    )


def test_a_greeting_before_the_first_question_is_left_out_where_rows_are_repaired(tmp_path: Path) -> None:
    row = messages(("system", "s"), ("agent", "hello"), ("customer", "hi"), ("agent", "yes ?"))
    with pytest.raises(DataError, match="message 2 is `assistant`, behind `system` stands user"):
        one(tmp_path, row)
    assert one(tmp_path, row, repair=True).messages == (Message("system", "s"), *PLAIN)
    notes = read(tmp_path / "a.jsonl", repair=True).notes
    assert any(
        "2 conversations in which nobody asks at first: what is said before is left" in n for n in notes
    )


def test_what_follows_the_last_reply_is_left_out_and_counted(tmp_path: Path) -> None:
    row = messages(("user", "hi"), ("assistant", "yes ?"), ("user", "bye"))
    assert one(tmp_path, row).messages == PLAIN
    notes = read(tmp_path / "a.jsonl").notes
    assert any("2 of 2 conversations end without a reply" in note for note in notes)


def test_several_columns_for_a_prompt_are_refused_not_cut_to_the_first(tmp_path: Path) -> None:
    row = {"ask": "x", "about": "y", "say": "z"}
    path = put(tmp_path, "a.jsonl", json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"`text: ask\+about` names 2 columns; one was wanted here"):
        read(path, text="ask+about", label="say")


def test_a_file_to_reply_to_loses_its_last_reply(tmp_path: Path) -> None:
    row = messages(("user", "hi"), ("assistant", "yes ?"))
    assert one(tmp_path, row, labelled=False).messages == PLAIN[:1]


def test_what_is_asked_ends_with_a_question() -> None:
    rows = asked(["hi", [{"role": "user", "content": "hi"}], messages(("user", "hi"))])
    assert rows.items == [Conversation((Message("user", "hi"),))] * 3
    with pytest.raises(DataError, match=r"item 1 of 1 in which the last message is a reply already"):
        asked([messages(("user", "hi"), ("assistant", "x"))])
    with pytest.raises(DataError, match=r"item 1 of 1 is '7'"):
        asked([7])


@pytest.mark.data
def test_real_sets_are_read(shared_data: Path) -> None:
    sizes = {
        "alpaca_en": 999,
        "alpaca_zh": 1000,
        "glaive_toolcall_en": 300,
        "glaive_toolcall_zh": 298,
        "kto_en": 300,
    }
    for name, size in sizes.items():
        path = shared_data / "sft_dpo_demo" / f"{name}_demo.json.gz"
        assert len(read(path, repair=True)) == size, name


def test_a_number_is_a_reply_and_a_question(tmp_path: Path) -> None:
    rows = [
        {"instruction": "double it", "input": 0, "output": 0},
        {"messages": [{"role": "user", "content": 7}, {"role": "assistant", "content": 0}]},
    ]
    texts = [read(put(tmp_path, f"{i}.jsonl", json.dumps(row))).texts[0] for i, row in enumerate(rows)]
    assert texts == ["user: double it\n0\nassistant: 0", "user: 7\nassistant: 0"]


def test_calls_may_be_a_list_and_parts_must_be_texts(tmp_path: Path) -> None:
    def row(name: str, value: Any) -> dict[str, Any]:
        sides = ("human", "weather?"), (name, value), ("observation", "rain"), ("gpt", "Rain.")
        return {"conversations": [{"from": side, "value": said} for side, said in sides]}

    calls = [{"name": "look", "arguments": {"at": "Bonn"}}, {"name": "look", "arguments": {"at": "Rome"}}]
    (one,) = read(put(tmp_path, "a.jsonl", json.dumps(row("function_call", calls)))).items or ()
    assert one.messages[1].calls == (("look", '{"at": "Bonn"}'), ("look", '{"at": "Rome"}'))
    strange = json.dumps(row("gpt", [{"type": "image_url", "image_url": "x"}]))
    with pytest.raises(DataError, match=r"line 1: .*a part without a text, .*image_url"):
        read(put(tmp_path, "b.jsonl", strange))
    with pytest.raises(DataError, match="there is no reply, only one side speaks"):
        read(put(tmp_path, "c.jsonl", json.dumps({"messages": None, "question": "x"})))
