"""Each rule drops what it is made for, with its own name as the reason, and leaves good text alone."""

import pytest

from penjing.corpus.asked import QualitySpec
from penjing.corpus.language import languages
from penjing.corpus.quality import RULES, judge
from penjing.corpus.units import chunk

PROSE = (
    "The harbour was quiet that morning, and the boats that had come in during the night lay along the "
    "wall with "
    "their sails down. A woman walked by with two baskets of fish; she did not look up. Somewhere behind "
    "the houses "
    "a dog barked, then a second one, and after that there was nothing to hear but the water. Nobody in "
    "the town "
    "could have said why, but they all knew that this day would not be like the ones before it."
)
CHINESE = (
    "清晨的港口十分安静，夜里回来的渔船沿着堤岸停靠，帆都已经放下。一个女人提着两篮鱼走过，没有抬头。房屋后面有狗叫了"
    "一声，接着又是一声，之后除了水声便什么也听不见了。镇上没有人说得出原因，但大家都知道，这一天不会和以往相同。"
)
BAD = {
    "too_short": "Only five words stand here.",
    "garbled": "ä½ å¥½ï¼ŒÃ¤Ã¶Ã¼ï¿½ï¿½ï¿½ Ã©tÃ© " + PROSE[:60] + " 锟斤拷锟斤拷锟斤拷",
    "few_letters": "~~~ === ||| *** " * 40 + PROSE[:120],
    "few_words": "2019 12.5 3,400 17 88 2020 13.1 3,600 19 92 2021 rise 14.0 3,900 21 95 2022 total 15 4,100",
    "word_length": " ".join(["incomprehensibilities", "internationalization", "counterrevolutionary"] * 10),
    "symbols": "# house # garden # there " + "# talk of the town # for all people " * 5,
    "bullets": "\n".join(f"- point {i} of the list with some words" for i in range(12)),
    "ellipses": "\n".join(
        f"this is what happened to the people in part {'abcdefghij'[i]} of the story…" for i in range(10)
    ),
    "repeated_lines": "The same line stands here again.\n" * 5
    + "And this one stands only once, at the end of it.",
    "boilerplate": "Sign in to read more\nAll rights reserved\nAccept cookie policy\nSubscribe to our news\n"
    "The town has a new mayor.\nShare this on your page",
    "no_stop_words": " ".join(f"for green{chr(97 + i % 26)} apple{chr(97 + i // 3 % 26)}" for i in range(60)),
    "repetition": "we buy and sell old gold for the best price in town today call now " * 8,
    "code_lines": "x = {" + "'a': [1, 2], " * 120 + "}\nprint(x)",
}


def reasons(texts: list[str], **changes: object) -> list[str]:
    units = chunk(texts)
    return judge(texts, units, languages(texts, units), QualitySpec(**changes))


def test_every_rule_has_an_example() -> None:
    assert BAD.keys() == RULES.keys()


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_text_goes_for_its_reason(reason: str) -> None:
    assert reasons([PROSE, BAD[reason], CHINESE]) == ["", reason, ""]


def test_a_rule_that_is_off_drops_nothing() -> None:
    assert reasons([BAD["bullets"]], bullets=None, repetition=0) == [""]
    assert reasons([BAD["too_short"]], least_units=None) == [""]
    assert reasons([BAD["repetition"]], repetition=0) == [""]


def test_the_verdict_does_not_depend_on_who_shares_the_chunk() -> None:
    texts = [PROSE, *BAD.values(), CHINESE]
    assert reasons(texts) == [reasons([text])[0] for text in texts]


def test_chinese_has_rules_of_its_own() -> None:
    assert reasons(["点击这里\n请登录\n返回首页\n版权所有\n今天的天气很好，我们去公园散步吧"]) == [
        "boilerplate"
    ]
    assert reasons(["诚信经营质优价廉货真价实童叟无欺" * 12]) == ["no_stop_words"]
    assert reasons(["我们的产品是最好的，欢迎大家来电订购，" * 15]) == ["repetition"]
