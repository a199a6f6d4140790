"""The text of a web page: blocks as lines, without scripts, menus and lists of links."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

# Not `form`: some servers put the whole page into one.
_SKIPPED_TAGS = "script style noscript template nav header footer aside button select textarea svg iframe"
_SKIPPED = frozenset(_SKIPPED_TAGS.split())
_BLOCK_TAGS = (
    "p div section article main li ul ol table tr h1 h2 h3 h4 h5 h6 blockquote pre br hr dd dt dl "
    "figcaption title body td th"
)
_BLOCKS = frozenset(_BLOCK_TAGS.split())
_EMPTY_TAGS = "area base br col embed hr img input link meta param source track wbr"
_EMPTY = frozenset(_EMPTY_TAGS.split())
_HEADED = frozenset(("article", "main", "section"))  # whose own header is a headline, not a menu
_MOST_LINKED = 0.6  # of a block's characters that may stand in links; menus and tag clouds have more
_SPACE = re.compile(r"[ \t\r\f\v\u00a0]+")


class _Page(HTMLParser):
    """Collects (text, characters in links) of every block."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[tuple[str, int]] = []
        self._parts: list[str] = []
        self._open: list[str] = []  # elements around what is read, and how many there are of each
        self._n_open: Counter[str] = Counter()
        self._linked = self._skipping = self._raw = 0
        self._link = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":  # links do not nest, and what is no link may lack its end
            self._link = any(name == "href" for name, _ in attrs)
            return
        if tag in _BLOCKS:
            self.end_block()
        if tag in _EMPTY:
            return
        headline = tag == "header" and any(self._n_open[one] for one in _HEADED)
        self._open.append("headline" if headline else tag)
        self._n_open[self._open[-1]] += 1
        self._skipping += tag in _SKIPPED and not headline
        self._raw += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._link = False
            return
        if tag in _BLOCKS:
            self.end_block()
        if tag == "header" and self._n_open["headline"]:
            tag = "headline"
        while self._n_open[tag]:  # with it end those within it whose own end is missing
            last = self._open.pop()
            self._n_open[last] -= 1
            self._skipping -= last in _SKIPPED
            self._raw -= last == "pre"
            if last == tag:
                return

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self._parts.append(data if self._raw else data.replace("\n", " "))
            self._linked += len(data.strip()) if self._link else 0

    def end_block(self) -> None:
        text = "".join(self._parts)
        text = text.strip("\n") if self._raw else _SPACE.sub(" ", text).strip()
        if text.strip():
            self.blocks.append((text, self._linked))
        self._parts, self._linked = [], 0


def text_of_html(page: str) -> str:
    """The blocks of a page that are text, a line each; empty where there are none."""
    parser = _Page()
    parser.feed(page)
    parser.close()
    parser.end_block()
    return "\n".join(text for text, linked in parser.blocks if linked <= _MOST_LINKED * len(text))
