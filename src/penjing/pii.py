"""Personal data and secrets in text: where they stand, and texts with them masked.

Patterns with checks behind them: an e-mail address, phone numbers (Chinese mobile and landline,
international), Chinese resident identity cards (GB 11643: date and check digit), bank cards (ISO/IEC 7812:
Luhn), bank accounts (IBAN, ISO 13616: the country's length, remainder by 97), IPv4 and IPv6 addresses, and
keys of well-known services. `\\b` is not used: between a Han character and a digit there is none. What has no
form of its own (names, street addresses) is not found.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

KINDS = ("email", "phone", "id_card", "bank_card", "iban", "ip", "key")


@dataclass(frozen=True)
class Span:
    """Personal data at `text[start:end]`; `kind` is one of `KINDS`."""

    start: int
    end: int
    kind: str


def find(text: str, *, kinds: Collection[str] = KINDS) -> list[Span]:
    """Personal data in a text, in order, none overlapping: of two that overlap the kind that is checked
    harder.
    """
    if _WIDE_SIGNS.search(text):
        text = text.translate(_NARROW)
    found: list[Span] = []
    for kind in _ORDER:
        if kind in kinds:
            found = _joined(found, _FINDERS[kind](text))
    return found


def mask(text: str, *, kinds: Collection[str] = KINDS) -> tuple[str, list[Span]]:
    """The text with each find replaced by its kind, such as `<email>`, and where they stood in the
    original.
    """
    spans = find(text, kinds=kinds)
    if not spans:
        return text, spans
    parts, at = [], 0
    for span in spans:
        parts += [text[at : span.start], f"<{span.kind}>"]
        at = span.end
    return "".join([*parts, text[at:]]), spans


def _joined(found: list[Span], more: Iterable[Span]) -> list[Span]:
    """What was found, in order, and what of `more` touches none of it. Spans of `more` lie apart."""
    ends = [span.end for span in found]
    free = []
    for span in more:
        at = bisect_right(ends, span.start)
        if at == len(found) or span.end <= found[at].start:
            free.append(span)
    return sorted([*found, *free], key=lambda span: span.start)


_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9][A-Za-z0-9._%+'-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,8}[A-Za-z]{2,24}"
    r"(?![A-Za-z0-9-])"
)
_ID_CARD = re.compile(r"(?<![0-9A-Za-z])[1-9]\d{5}[ -]?(?:18|19|20)\d{6}[ -]?\d{3}[0-9Xx](?![0-9A-Za-z])")
_BANK_CARD = re.compile(
    r"(?<![0-9A-Za-z.-])(?:3[47]\d{2}[ -]?\d{6}[ -]?\d{5}"  # American Express groups 4 6 5
    r"|(?:[2-6]\d|95)\d{2}(?:[ -]?\d{4}){2}[ -]?\d{1,4}(?:[ -]?\d{1,3})?)(?![0-9A-Za-z])"
)
_IBAN = re.compile(r"(?<![0-9A-Za-z])[A-Z]{2}\d{2}(?: ?[0-9A-Z]){11,30}")
_IBAN_SIZES = {  # registry of SWIFT, release 99
    country: size
    for size, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FK FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO EG GT HN HU LB NI PL SV",
        29: "BR PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}
_PHONES = (  # the longest forms first: the others would find a part of them
    re.compile(
        r"(?<![0-9A-Za-z])(?:\+[1-9]\d{0,2}[ .-]?|(?<![.-])(?<!\d )00[1-9]\d{0,2}[ -])(?:\(\d{1,4}\)[ .-]?)?"
        r"\d(?:[ .-]?\d){3,13}(?![0-9A-Za-z])"  # one way only to read it: groups of digits are many
    ),
    re.compile(r"(?<![0-9A-Za-z.])(?:(?:\+|00)86[- ]?|86[- ])?1[3-9]\d(?:[- ]?\d{4}){2}(?![0-9A-Za-z])"),
    re.compile(r"(?<![0-9A-Za-z.-])\(?0(?:10|2\d|[3-9]\d{2})[-) ] ?[2-8]\d{6,7}(?![0-9])"),
    re.compile(r"(?<![0-9A-Za-z.-])\(?0[1-9]\d{1,3}\)? \d{3,4} ?\d{3,4}(?![0-9A-Za-z])"),  # after a trunk's 0
    re.compile(r"(?<![0-9A-Za-z.-])400-?\d{3}-?\d{4}(?![0-9])"),
    re.compile(
        r"(?<![0-9A-Za-z.-])(?:1[-. ])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[-. ])[2-9]\d{2}[-. ]\d{4}"
        r"(?![0-9A-Za-z-])"
    ),
)
# Ten digits may be anything; behind such a word they are a number of North America.
_SAID_PHONE = re.compile(
    r"\b(?:tel|phone|telephone|mobile|cell|call|ring|fax|whatsapp)\b"
    r"[ .:#]{0,3}(?:(?:no|number|me|is|at|on)\b[ .:#]{0,3}){0,3}([2-9]\d{2}[2-9]\d{6})(?![0-9A-Za-z])",
    re.IGNORECASE,
)
_VERSION = re.compile(r"(?:\b(?:version|ver|v|release)|版本号?)[ .:：]{0,2}\Z", re.IGNORECASE)
# Full-width signs are the same signs: one for one, so that places stay what they are.
_WIDE_SIGNS = re.compile("[０-９＠（Ａ-Ｚａ-ｚ]")
_NARROW = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_IP4 = re.compile(r"(?<![0-9A-Za-z.])(?:\d{1,3}\.){3}\d{1,3}(?![0-9A-Za-z]|\.\d)")
_IP6 = re.compile(r"(?<![0-9A-Za-z:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![0-9A-Za-z:]|\.\d)")
_KEYS = re.compile(
    r"(?<![0-9A-Za-z_-])(?:"
    r"AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}|LTAI[0-9A-Za-z]{12,20}|AIza[0-9A-Za-z_-]{35}"  # AWS, Aliyun, Google
    r"|gh[pousr]_[0-9A-Za-z]{36,255}|github_pat_[0-9A-Za-z_]{22,255}|glpat-[0-9A-Za-z_-]{20,}"
    r"|sk-(?:ant-|proj-)?[0-9A-Za-z_-]{20,}|hf_[0-9A-Za-z]{30,}|xox[abprs]-[0-9A-Za-z-]{10,}"
    r"|sk_live_[0-9A-Za-z]{16,}|npm_[0-9A-Za-z]{36}|pypi-[0-9A-Za-z_-]{50,}"
    r"|eyJ[0-9A-Za-z_-]{8,}\.eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}"  # JSON web token
    r")"
    r"|-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----.*?(?:-----END (?:[A-Z]+ )*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
_KEY_SIGNS = (
    "AKIA",
    "ASIA",
    "LTAI",
    "AIza",
    "gh",
    "glpat-",
    "sk",
    "hf_",
    "xox",
    "npm_",
    "pypi-",
    "eyJ",
    "PRIVATE KEY",
)
_SIX_DIGITS = re.compile(r"\d(?:[ .()-]{0,2}\d){5}")


def _digits(text: str) -> bool:
    return _SIX_DIGITS.search(text) is not None


def _plain(
    pattern: re.Pattern[str], kind: str, true: Callable[[str], bool]
) -> Callable[[str], Iterator[Span]]:
    def spans(text: str) -> Iterator[Span]:
        for match in pattern.finditer(text):
            if true(match[0]):
                yield Span(match.start(), match.end(), kind)

    return spans


def _emails(text: str) -> Iterator[Span]:
    if "@" in text:
        yield from _plain(_EMAIL, "email", lambda _: True)(text)


def _phones(text: str) -> Iterator[Span]:
    if _digits(text):
        last: list[Span] = []
        for pattern in _PHONES:
            like = _plain(pattern, "phone", lambda hit: 7 <= sum(map(str.isdigit, hit)) <= 15)
            last = _joined(last, like(text))
        yield from _joined(last, (Span(*said.span(1), "phone") for said in _SAID_PHONE.finditer(text)))


def _id_cards(text: str) -> Iterator[Span]:
    if _digits(text):
        yield from _plain(_ID_CARD, "id_card", lambda hit: is_id_card(re.sub("[ -]", "", hit)))(text)


def _bank_cards(text: str) -> Iterator[Span]:
    if _digits(text):
        yield from _plain(_BANK_CARD, "bank_card", lambda hit: _issued(hit) and is_bank_card(hit))(text)


def _ibans(text: str) -> Iterator[Span]:
    if _digits(text):
        for match in _IBAN.finditer(text):
            places = [match.start() + i for i, sign in enumerate(match[0]) if sign != " "]
            size = _IBAN_SIZES.get(match[0][:2], len(text))
            if size > len(places):
                continue
            end = places[size - 1] + 1
            alone = not re.match("[0-9A-Za-z]", text[end : end + 1])
            if alone and is_iban(text[match.start() : end].replace(" ", "")):
                yield Span(match.start(), end, "iban")


def _ips(text: str) -> Iterator[Span]:
    if "." in text:
        for span in _plain(_IP4, "ip", _is_ip)(text):
            if not _VERSION.search(text[max(0, span.start - 12) : span.start]):
                yield span
    if text.count(":") > 1:
        yield from _plain(_IP6, "ip", lambda hit: len(hit) > 4 and _is_ip(hit))(text)


def _keys(text: str) -> Iterator[Span]:
    if any(sign in text for sign in _KEY_SIGNS):
        yield from _plain(_KEYS, "key", lambda _: True)(text)


def is_id_card(number: str) -> bool:
    """Whether 18 signs are a Chinese resident identity number: province, date of birth, check digit (GB
    11643).
    """
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    try:
        datetime.date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    total = sum(int(sign) * weight for sign, weight in zip(number, weights, strict=False))
    return "11" <= number[:2] <= "91" and "10X98765432"[total % 11] == number[-1].upper()


def is_bank_card(number: str) -> bool:
    """Whether 13 to 19 digits, spaces and hyphens aside, have the right check digit (Luhn, ISO/IEC 7812)."""
    digits = [int(sign) for sign in number if sign.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = [2 * d - 9 * (d > 4) for d in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_iban(number: str) -> bool:
    """Whether it has its country's length and leaves 1 by 97, letters counted from 10 (ISO 7064)."""
    turned = number[4:] + number[:4]
    return (
        _IBAN_SIZES.get(number[:2]) == len(number) and int("".join(str(int(c, 36)) for c in turned)) % 97 == 1
    )


def _issued(number: str) -> bool:
    """Whether cards of this length begin so: a tenth of all numbers have the check digit of one (13 digits of
    an article number, say)."""
    digits = "".join(sign for sign in number if sign.isdigit())
    first = {13: ("4",), 14: ("30", "36", "38", "39"), 15: ("34", "37")}
    return digits.startswith(first.get(len(digits), ("2", "3", "4", "5", "6", "95")))


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


_FINDERS: dict[str, Callable[[str], Iterator[Span]]] = {
    "email": _emails,
    "phone": _phones,
    "id_card": _id_cards,
    "bank_card": _bank_cards,
    "iban": _ibans,
    "ip": _ips,
    "key": _keys,
}
_ORDER = ("key", "email", "id_card", "iban", "bank_card", "ip", "phone")  # checked hardest first
