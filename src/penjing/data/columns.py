"""Which column is the text and which the label: as named by the user, else by usual names, else by content.

A guess is always told. To know one more usual name, add it to `TEXT_NAMES` or `LABEL_NAMES`, the likeliest
first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from penjing.data.table import Table, sample
from penjing.errors import DataError, nearest

TEXT_NAMES = tuple(
    """
    text sentence content utterance query review message body comment document utt tweet post question
    sent sentence1 text_a text1 description abstract article news passage dialogue conversation
    complaint feedback request input prompt instruction note summary headline title subject texts
    sentences 文本 内容 正文 句子 语句 文字 评论 评价 评论内容 留言 问题 提问 咨询 咨询内容 用户输入
    输入 反馈 投诉内容 工单内容 描述 摘要 新闻 标题 主题内容
    """.split()  # noqa: SIM905
)
LABEL_NAMES = tuple(
    """
    label labels intent intents category categories class classes target sentiment topic topics
    label_name intent_name category_name class_name label_text gold annotation emotion polarity tag tags y
    queue department cat
    class_index class_id label_id category_id intent_id
    type kind genre output rating stars score priority
    标签 类别 意图 分类 类目 种类 情感 情绪 主题 话题 类型 标注 所属类别 评分 部门
    """.split()  # noqa: SIM905
)
# What tasks of several texts call their columns: two of them are a header, as one may be a label
# (`positive`).
ROLE_NAMES = frozenset(
    """
    anchor positive negative neg hard_negative premise hypothesis claim evidence context ctx response reply
    answer answers choice choices option options ending endings chosen rejected src tgt source target
    reference user assistant doc s q document passage completion query question
    前提 假设 查询 文档 问题 答案 回答 回复 选项 题目 背景 原文 译文 句子 正例 负例 文本
    """.split()  # noqa: SIM905
)
# Names of languages, of which a table of translations has two as columns.
LANGUAGES = frozenset(
    """
    ar cs da de el en es et fi fr hi hu id it ja ko lt lv nl pl pt ro ru sv tr uk vi zh
    english chinese german french spanish russian japanese korean arabic portuguese italian
    中文 英文 英语 汉语 日文 日语 韩文 韩语 德语 法语 俄语 西班牙语
    """.split()  # noqa: SIM905
)
TITLES = ("title", "headline", "subject", "标题", "题目")
BODIES = ("body", "content", "text", "description", "abstract", "article", "正文", "内容", "描述", "摘要")
# Columns whose name ends so are about the text, not the text.
NOT_TEXT = frozenset(
    """
    id idx index no num number date time url link lang language len length count source split author
    user
    """.split()  # noqa: SIM905
)


class NoColumn(DataError):
    """A column that `key` names is not among a table's `columns`."""

    def __init__(self, text: str, *, key: str, columns: tuple[str, ...]) -> None:
        super().__init__(text)
        self.key, self.columns = key, columns


def is_known(name: str) -> bool:
    """Whether a cell reads like the head of a text or label column."""
    return simple(name) in TEXT_NAMES or simple(name) in LABEL_NAMES


def is_like_known(name: str) -> bool:
    """Whether a short cell ends like a usual name, such as `ticket_text` or 用户问题."""
    if " " in name.strip() or len(name) > 30:
        return False
    word = simple(name).split("_")[-1].rstrip("12")  # `question1` and `question2`
    return word in TEXT_NAMES or word in LABEL_NAMES or (len(word) <= 8 and _ends_like(word))


def is_role(name: str) -> bool:
    """Whether a cell reads like the head of one of several columns of texts: `premise`, `neg_1`, 句子二."""
    return re.sub(r"_?[0-9一二甲乙]$", "", simple(name)) in ROLE_NAMES


def is_language(name: str) -> bool:
    """Whether a column's name, or the end of its path, names a language: `zh`, `translation.de`."""
    return simple(name.rpartition(".")[2]) in LANGUAGES


def _ends_like(word: str, known: Sequence[str] = (*TEXT_NAMES, *LABEL_NAMES)) -> bool:
    """Chinese names are not divided by spaces: 意图类别 ends with 类别."""
    return any(name > "\u3400" and word.endswith(name) for name in known)


def choose(
    table: Table, *, text: str | None, label: str | None, labelled: bool
) -> tuple[list[str], list[str], list[str]]:
    """Columns that make the text (joined), columns that make the label, and notes on what was guessed.

    `a+b` names several columns. Without `labelled`, no label column is no error, and none is guessed by
    content.

    Raises:
        DataError: a named column is not there, or none can be guessed.
    """
    texts = (
        named(table, text, key="text", must=True) if text is not None else text_by_name(table, besides=label)
    )
    labels = (
        named(table, label, key="label", must=labelled)
        if label is not None
        else _label_by_name(table, besides=texts)
    )
    rest = [c for c in table.columns if c not in texts and c not in labels]
    if labelled and not labels and len(table.columns) == 1:
        raise DataError(
            f"{table.name}: rows with labels were wanted; there is one column (`{table.columns[0]}`) and so "
            f"no label. Add a "
            f"label column, write `label<TAB>text` a line, or make one sub-folder a class."
        )
    if not texts or (labelled and not labels):
        cells = sample(table)
        texts = texts or text_by_content(table, cells, besides=labels)
        if labelled and not labels:
            labels = label_by_content(table, cells, texts)
        rest = [c for c in table.columns if c not in texts and c not in labels]
    guessed = [
        f"{kind} from {listed(found)}"
        for kind, found, given in (("text", texts, text), ("label", labels, label))
        if given is None and found
    ]
    if not guessed or len(table.columns) == 1:
        return texts, labels, []
    sure = " and ".join(f"`{kind}:`" for kind, given in (("text", text), ("label", label)) if given is None)
    aside = f"; left aside: {', '.join(rest[:8])}{'…' if len(rest) > 8 else ''}" if rest else ""
    return texts, labels, [f"{table.name}: {', '.join(guessed)} (guessed; say {sure} to be sure{aside})"]


def listed(names: Sequence[str]) -> str:
    """Column names as a sentence has them."""
    return ("column " if len(names) == 1 else "columns ") + " + ".join(f"`{name}`" for name in names)


def named(table: Table, given: str, *, key: str, must: bool) -> list[str]:
    """The columns that a user names, `a+b` for several.

    Raises:
        NoColumn: one is not there, and it must be.
    """
    wanted = [given] if given in table.columns else [part.strip() for part in given.split("+")]
    missing = next((name for name in wanted if name not in table.columns), None)
    if missing is None:
        return wanted
    if not must:
        return []
    spelled = next((c for c in table.columns if simple(c) == simple(missing)), None)
    near = f" Did you mean `{spelled}`?" if spelled else nearest(missing, table.columns)
    head = (
        ""
        if table.headed
        else " No header was seen, so columns have numbers; put names in the first line to name them."
    )
    raise NoColumn(
        f"{table.name}: `{key}: {given}` asks for a column `{missing}`; there is none.{near} "
        f"Columns: {', '.join(table.columns[:20])}.{head}",
        key=key,
        columns=tuple(table.columns),
    )


def one_named(
    table: Table, given: str, *, key: str, must: bool, why: str = "one was wanted here"
) -> str | None:
    """The column that a user names where one alone is of use; None where it is not there and need not be.

    Raises:
        DataError: several are named, of which all but one would be lost; it is not there, and it must be.
    """
    found = named(table, given, key=key, must=must)
    if len(found) > 1:
        raise DataError(
            f"{table.name}: `{key}: {given}` names {len(found)} columns; {why}. Name one of "
            f"{', '.join(found)}, or join them in the file."
        )
    return found[0] if found else None


def simple(name: str) -> str:
    """A column's name in small letters, words joined by `_`."""
    return re.sub(r"[\W_]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())).strip("_").lower()


def by_name(columns: Sequence[str], known: Sequence[str]) -> str | None:
    """The column with the likeliest known name: by the whole name, then its last word, then any word."""
    plain = {c: simple(c) for c in columns}
    words = {c: p.split("_") for c, p in plain.items()}
    usable = [c for c in columns if words[c][-1] not in NOT_TEXT]
    whole = (c for name in known for c in columns if plain[c] == name)
    last = (c for name in known for c in usable if words[c][-1] == name)
    part = (c for name in known for c in usable if name in words[c])
    end = (c for name in known for c in usable if _ends_like(plain[c], (name,)))
    return next((c for found in (whole, last, part, end) for c in found), None)


def text_by_name(table: Table, *, besides: str | None = None) -> list[str]:
    """The columns that are the text by their usual names."""
    taken = (besides or "").split("+")
    labelish = {
        c
        for c in table.columns
        if simple(c).split("_")[0] in ("label", "labels", "class", "category", "标签", "类别")
    }
    free = [c for c in table.columns if c not in taken and c not in labelish]
    title = next((c for c in free if simple(c) in TITLES), None)
    body = next((c for name in BODIES for c in free if simple(c) == name), None)
    if title is not None and body is not None:
        return [title, body]
    hit = by_name(free, TEXT_NAMES)
    return [hit] if hit is not None else []


def _label_by_name(table: Table, *, besides: Sequence[str]) -> list[str]:
    hit = by_name([c for c in table.columns if c not in besides], LABEL_NAMES)
    return [hit] if hit is not None else []


def filled(cells: Sequence[Sequence[Any]], i: int) -> list[str]:
    """The cells of a column that hold something, as texts."""
    return [str(row[i]) for row in cells if row[i] is not None and str(row[i]).strip()]


def wordy(table: Table, cells: Sequence[Sequence[Any]], *, besides: Sequence[str]) -> dict[str, float]:
    """The columns whose cells read like texts, and the mean length of those."""
    lengths: dict[str, float] = {}
    for i, name in enumerate(table.columns):
        values = filled(cells, i)
        if name in besides or not values or simple(name).split("_")[-1] in NOT_TEXT:
            continue
        share = sum(
            bool(re.search(r"[^\W\d_]", v)) and not re.match(r"https?://|\S+@\S+$", v) for v in values
        ) / len(values)
        if share > 0.5 and (len(set(values)) > 0.3 * len(values) or len(table.columns) - len(besides) == 1):
            lengths[name] = sum(map(len, values)) / len(values)
    return lengths


def text_by_content(table: Table, cells: Sequence[Sequence[Any]], *, besides: Sequence[str]) -> list[str]:
    """The one column whose cells read like texts.

    Raises:
        DataError: there is not just one.
    """
    lengths = wordy(table, cells, besides=besides)
    ranked = sorted(lengths, key=lambda name: -lengths[name])
    if not ranked or (len(ranked) > 1 and lengths[ranked[1]] > 0.7 * lengths[ranked[0]]):
        raise unclear(table, cells, "text")
    return ranked[:1]


def label_by_content(table: Table, cells: Sequence[Sequence[Any]], texts: Sequence[str]) -> list[str]:
    """The one column whose cells read like labels.

    Raises:
        DataError: there is not just one.
    """
    free = [(i, name) for i, name in enumerate(table.columns) if name not in texts]
    found = []
    for i, name in free:
        values = filled(cells, i)
        n_distinct = len(set(values))
        short = sum(map(len, values)) <= 40 * len(values)
        few = n_distinct <= max(2, len(values) // 2) or (len(free) == 1 and len(values) < 10)
        if (
            values
            and short
            and few
            and (n_distinct > 1 or len(free) == 1)
            and simple(name).split("_")[-1] not in NOT_TEXT
        ):
            found.append(name)
    if len(found) != 1:
        raise unclear(table, cells, "label")
    return found


def unclear(table: Table, cells: Sequence[Sequence[Any]], kind: str) -> DataError:
    """The complaint that a column cannot be guessed, with what the columns hold."""
    shown = []
    for i, name in enumerate(table.columns[:12]):
        values = list(dict.fromkeys(filled(cells, i)))[:2]
        shown.append(
            f"`{name}` ({', '.join(repr(v if len(v) <= 30 else v[:29] + '…') for v in values) or 'empty'})"
        )
    return DataError(
        f"{table.name}: which column is the {kind} could not be guessed. Columns: {', '.join(shown)}. "
        f"Say which, such as {_likely(table, cells, kind)}.{_spans_hint(table, cells)}"
    )


def _spans_hint(table: Table, cells: Sequence[Sequence[Any]]) -> str:
    """What to say where a column holds objects or lists of places, as tools of entities write them."""
    for i, name in enumerate(table.columns):
        held = next((row[i] for row in cells if row[i]), None)
        if isinstance(held, list) and isinstance(held[0], dict | list):
            return f" If `{name}` holds entities of the text, say `task: tag`."
    return ""


def _likely(table: Table, cells: Sequence[Sequence[Any]], kind: str) -> str:
    """An example of how to name a column: the longest texts; columns of 0 and 1; else what is no id."""
    columns = {name: filled(cells, i) for i, name in enumerate(table.columns)}
    longest = max(columns, key=lambda name: sum(map(len, columns[name])))
    if kind == "text":
        return f"`text: {longest}`"
    marks = [name for name, values in columns.items() if set(values) == {"0", "1"}]
    if len(marks) > 1:
        return (
            f"`label: {marks[0]}`, or `label: {'+'.join(marks)}` with `task: {{classify: {{multi_label: "
            "true}}`"
        )
    rest = [name for name in columns if name != longest] or [longest]
    return f"`label: {min(rest, key=lambda n: (simple(n).split('_')[-1] in NOT_TEXT, rest.index(n)))}`"
