"""A corpus as one row of tokens, and pieces that tile it."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from penjing.data.feed import Document, Stream, feed_of, pieces_of
from penjing.errors import DataError
from penjing.task import Feed

Tiny = Callable[..., Path]
PLAIN = Feed()
TEXTS = [
    ("my card was charged twice. the parcel is late!", "en"),
    ("我的快递还没有到。密码忘记了怎么办", "zh"),
    ("the courier says it is lost " * 20, "en"),
]


def documents() -> Iterator[Document]:
    return (Document(text, source) for text, source in TEXTS)


def fed(tiny: Tiny, family: str = "bert", feed: Feed = PLAIN, key: str = "a", **more: object) -> Stream:
    tokenizer = AutoTokenizer.from_pretrained(tiny(family))
    return feed_of(documents, tokenizer, feed, key=key, **more)  # type: ignore[arg-type]


def test_documents_lie_end_to_end(tiny: Tiny) -> None:
    found, tokenizer = fed(tiny), AutoTokenizer.from_pretrained(tiny("bert"))
    wanted = [tokenizer(text, add_special_tokens=False)["input_ids"] for text, _ in TEXTS]
    assert found.ids.tolist() == [i for row in wanted for i in row]
    assert np.diff(found.starts).tolist() == [len(row) for row in wanted]
    assert found.sources == ("en", "zh")
    assert found.source_of.tolist() == [0, 1, 0]
    assert found.n_bytes.tolist() == [len(text.encode()) for text, _ in TEXTS]
    assert found.ids.dtype == np.uint16


def test_two_that_want_one_feed_write_it_once(tiny: Tiny) -> None:
    """Threads here, whose locks are held apart as those of processes are."""
    begun = threading.Event()

    def slow() -> Iterator[Document]:
        begun.set()
        yield from documents()
        time.sleep(0.3)

    def forbidden() -> Iterator[Document]:
        raise AssertionError("read again")

    tokenizer = AutoTokenizer.from_pretrained(tiny("bert"))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(feed_of, slow, tokenizer, Feed(), key="both")
        assert begun.wait(30)
        again = feed_of(forbidden, tokenizer, Feed(), key="both")
    assert np.array_equal(first.result().ids, again.ids)


def test_the_cache_is_by_key_and_gives_the_same(tiny: Tiny) -> None:
    def forbidden() -> Iterator[Document]:
        raise AssertionError("read again")

    tokenizer = AutoTokenizer.from_pretrained(tiny("bert"))
    first = feed_of(documents, tokenizer, Feed(), key="kept")
    again = feed_of(forbidden, tokenizer, Feed(), key="kept")
    assert np.array_equal(first.ids, again.ids)
    assert first.sha256 == again.sha256
    with pytest.raises(AssertionError, match="read again"):
        feed_of(forbidden, tokenizer, Feed(), key="other")


def test_documents_end_where_a_decoder_s_should(tiny: Tiny) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny("llama"))
    found = fed(tiny, "llama", Feed(ends=True))
    assert found.ids[found.starts[:-1]].tolist() == [tokenizer.bos_token_id] * 3
    assert found.ids[found.starts[1:] - 1].tolist() == [tokenizer.eos_token_id] * 3


def test_sentences_are_units_of_their_own(tiny: Tiny) -> None:
    assert len(fed(tiny, feed=Feed("sentence"))) == 2 + 2 + 1


def test_what_makes_no_token_is_no_piece(tiny: Tiny) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny("bert"))
    text = "my card was charged twice\n\u200b\nthe parcel is late\n\u200b"
    found = feed_of(lambda: [Document(text, "en")], tokenizer, Feed("sentence"), key="blank")
    part = pieces_of(found, Feed("sentence", 2), 32)
    assert len(part) == 2
    assert part.tokens.lengths.min() > 0


def test_heads_mark_where_words_begin(tiny: Tiny) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny("bert"))

    def words(text: str) -> list[int]:
        return [0, *(i + 1 for i, sign in enumerate(text) if sign == " ")]

    found = feed_of(
        lambda: [Document("charged unknownish xq", "a")], tokenizer, Feed(heads=True), key="h", words=words
    )
    assert found.heads is not None
    pieces = tokenizer.convert_ids_to_tokens(found.ids.tolist())
    assert [not piece.startswith("##") for piece in pieces] == found.heads.astype(bool).tolist()


@pytest.mark.parametrize("unit", ["document", "stream"])
def test_pieces_tile_the_row(tiny: Tiny, unit: str) -> None:
    stream, feed = fed(tiny), Feed(unit, taken=2)  # type: ignore[arg-type]
    part = pieces_of(stream, feed, 18)
    assert part.tokens.starts[0] == 0
    assert part.tokens.starts[-1] == len(stream.ids)
    lengths = part.tokens.lengths
    assert (lengths.min() >= 1, lengths.max() <= 16) == (True, True)
    assert part.targets[-1, 2] == 1
    if unit == "document":
        assert part.targets[:, 2].sum() == 3
        assert set(stream.starts) <= set(part.tokens.starts)
        assert part.targets[:, 3].sum() == stream.n_bytes.sum()
        last = lengths[part.targets[:, 1] == 2]
        assert last.max() - last.min() <= 1


def test_a_corpus_without_text_is_refused(tiny: Tiny) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny("bert"))
    with pytest.raises(DataError, match="the corpus holds none"):
        feed_of(lambda: [Document("  \n ", "a")], tokenizer, Feed(), key="empty")


def test_a_limit_without_room_is_refused(tiny: Tiny) -> None:
    with pytest.raises(DataError, match=r"`data.max_length` is 3, of which the objective takes 2"):
        pieces_of(fed(tiny), Feed(taken=2), 3)
