"""The text of a web page: blocks as lines, without scripts, menus and lists of links."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_SKIPPED_TAGS = "script style noscript template nav header footer aside form button select svg iframe"
_SKIPPED = frozenset(_SKIPPED_TAGS.split())
_BLOCK_TAGS = (
    "p div section article main li ul ol table tr h1 h2 h3 h4 h5 h6 blockquote pre br hr dd dt dl "
    "figcaption title body td th"
)
_BLOCKS = frozenset(_BLOCK_TAGS.split())
_MOST_LINKED = 0.6  # of a block's characters that may stand in links; menus and tag clouds have more
_SPACE = re.compile(r"[ \t\r\f\v\u00a0]+")


class _Page(HTMLParser):
    """Collects (text, characters in links) of every block."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[tuple[str, int]] = []
        self._parts: list[str] = []
        self._linked = self._links = self._skipping = self._raw = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in _SKIPPED:
            self._skipping += 1
        elif tag == "a":
            self._links += 1
        elif tag in _BLOCKS:
            self.end_block()
            self._raw += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag in _SKIPPED:
            self._skipping = max(0, self._skipping - 1)
        elif tag == "a":
            self._links = max(0, self._links - 1)
        elif tag in _BLOCKS:
            self.end_block()
            self._raw = max(0, self._raw - (tag == "pre"))

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self._parts.append(data if self._raw else data.replace("\n", " "))
            self._linked += len(data.strip()) if self._links else 0

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
