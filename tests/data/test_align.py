"""Pieces and words, and windows: against the tokenizer itself and by hand."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import each
from penjing.data.align import lay, pieces_of, sites_of, windows
from penjing.data.conll import laid_out
from penjing.data.entities import Tagged, characters_of, words_of
from penjing.errors import NotSupported, SpecError
from penjing.models.load import load

Tiny = Callable[..., Path]
TEXTS = ["my parcel is Late, the courier (U.N.) says", "我的快递 NBA还没有到 late", "x"]
FAMILIES = ["bert", "gpt2", "albert", "roberta", "t5", "llama"]


def items_of(texts: list[str]) -> list[Tagged]:
    return [Tagged(text, words_of(text), ()) for text in texts]


@pytest.mark.parametrize("family", each(FAMILIES))
def test_a_words_first_piece_begins_in_the_word(family: str, tiny: Tiny) -> None:
    tokenizer = load(str(tiny(family))).tokenizer
    for item, found in zip(items_of(TEXTS), pieces_of(tokenizer, items_of(TEXTS)), strict=True):
        assert found.ids == tokenizer(item.text, add_special_tokens=False)["input_ids"]
        assert len(found.sites) == len(found.places)
        # Words that a tokenizer knows nothing of may share a piece; each is in one site, and none is lost.
        assert {start for start, _ in found.places} <= {start for start, _ in item.words}
        assert {end for _, end in found.places} <= {end for _, end in item.words}
        sizes = [sum(a <= start and end <= b for a, b in found.places) for start, end in item.words]
        assert sizes == [1] * len(item.words)
        offsets = tokenizer(item.text, add_special_tokens=False, return_offsets_mapping=True)[
            "offset_mapping"
        ]
        for site, (start, end) in zip(found.sites, found.places, strict=True):
            assert offsets[site][0] < end
            assert offsets[site][1] > start


def test_characters_that_share_a_piece_are_one_site(tiny: Tiny) -> None:
    tokenizer = load(str(tiny("bert"))).tokenizer
    item = Tagged("parcel 上", characters_of("parcel 上"), ())
    (found,) = pieces_of(tokenizer, [item])
    assert len(found.sites) == len(set(found.sites))
    assert found.places[0][0] == 0
    assert [item.text[a:b] for a, b in found.places][-1] == "上"
    assert "".join(item.text[a:b] for a, b in found.places) == "parcel上"


def test_every_piece_may_be_a_site(tiny: Tiny) -> None:
    tokenizer = load(str(tiny("bert"))).tokenizer
    (found,) = pieces_of(tokenizer, items_of([TEXTS[0]]), every=True)
    assert found.sites == list(range(len(found.ids)))
    assert "".join(TEXTS[0][a:b] for a, b in found.places) == TEXTS[0].replace(" ", "")


def test_a_tokenizer_without_offsets_reads_word_by_word(tiny: Tiny) -> None:
    fast = load(str(tiny("bert"))).tokenizer

    class Slow:
        is_fast = False

        def __call__(self, text: str, **how: Any) -> Any:
            return fast(text, **how)

    for text in TEXTS:
        (wanted,), (found,) = (list(pieces_of(t, items_of([text]))) for t in (fast, Slow()))
        assert found == wanted
    with pytest.raises(NotSupported, match=r"`units: pieces`.*Slow does not tell.*words"):
        next(pieces_of(Slow(), items_of(TEXTS), every=True))


def test_a_word_of_which_nothing_is_left_has_no_site(tiny: Tiny) -> None:
    tokenizer = load(str(tiny("bert"))).tokenizer
    text, places = laid_out(["late", "\u200b", "x"])
    (found,) = pieces_of(tokenizer, [Tagged(text, places, (), given=True)])
    assert [text[a:b] for a, b in found.places] == ["late", "x"]


@pytest.mark.parametrize(
    ("n", "room", "overlap"),
    [(5, 8, 0.25), (8, 8, 0.25), (9, 8, 0.25), (100, 10, 0.5), (57, 8, 0.0), (1000, 126, 0.25)],
)
def test_each_piece_belongs_to_the_window_where_it_is_furthest_from_a_border(
    n: int, room: int, overlap: float
) -> None:
    found = windows(n, room, overlap)
    owned = [piece for _, _, own, end in found for piece in range(own, end)]
    assert owned == list(range(n))
    assert all(end - start <= room for start, end, _, _ in found)

    def room_beside(piece: int, start: int, end: int) -> int:
        """Pieces to the nearer border; the row's own ends are none."""
        left = n if start == 0 else piece - start
        return min(left, n if end == n else end - 1 - piece)

    for start, end, own, own_end in found:
        for piece in range(own, own_end):
            best = max(room_beside(piece, a, b) for a, b, _, _ in found if a <= piece < b)
            assert room_beside(piece, start, end) >= best - 1


def test_rows_are_laid_out_with_special_tokens_and_sites(tiny: Tiny) -> None:
    tokenizer = load(str(tiny("bert"))).tokenizer
    laid = lay(tokenizer, items_of(TEXTS), max_length=64, overlap=0.25)
    assert laid.owners.tolist() == [0, 1, 2]
    assert laid.tokens.labels is not None
    for row, text in enumerate(TEXTS):
        ids = laid.tokens.ids[laid.tokens.starts[row] : laid.tokens.starts[row + 1]]
        assert ids.tolist() == tokenizer(text)["input_ids"]
        own = laid.tokens.labels[laid.tokens.starts[row] : laid.tokens.starts[row + 1]]
        assert (own == 0).sum() == len(laid.places[row])
        assert own[0] == own[-1] == -100


def test_windows_of_a_long_row_own_each_site_once(tiny: Tiny) -> None:
    tokenizer = load(str(tiny("bert"))).tokenizer
    item = items_of([" ".join(["parcel late"] * 40)])
    laid = lay(tokenizer, item, max_length=20, overlap=0.25)
    assert len(laid.owners) > 3
    assert laid.tokens.labels is not None
    assert int((laid.tokens.labels == 0).sum()) == len(laid.places[0]) == 80
    assert laid.tokens.lengths.max() == 20


def test_no_room_beside_the_special_tokens_is_told(tiny: Tiny) -> None:
    with pytest.raises(SpecError, match=r"`data.max_length` is 3.*adds 2 special tokens"):
        lay(load(str(tiny("bert"))).tokenizer, items_of(["a"]), max_length=3, overlap=0.25)


def test_sites_of_a_span_are_those_it_touches() -> None:
    places = ((0, 2), (3, 6), (7, 9))
    item = replace(Tagged("", (), ()), sites=places)
    for start in range(10):
        for end in range(start + 1, 10):
            touched = [i for i, (a, b) in enumerate(item.sites) if a < end and b > start]
            first, last = sites_of(places, start, end)
            assert np.array_equal(range(first, last), touched), (start, end)
