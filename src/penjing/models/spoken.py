"""The text of an answer as it grows, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

HALF = "\ufffd"  # stands for bytes that are no character yet


class Spoken:
    """Decodes the last few tokens only: an answer of n tokens costs n small texts, and not n whole ones.

    A token's text may depend on what is before it: the first loses the space it begins with, a character may
    be several byte tokens. So the tokens of the last two steps are decoded, and of their text what goes
    beyond the one known before is new. Where a tokenizer writes earlier words anew, all are decoded once.
    """

    def __init__(self, text: Callable[[Sequence[int]], str]) -> None:
        """text: of any ids, as `Prompts.text`."""
        self._text = text
        self.said = ""
        self._begin = self._end = 0  # the first token that is decoded, and the first of the last step
        self._known = ""  # of their text, what is in `said`

    def more(self, ids: Sequence[int]) -> str:
        """The text of all ids so far, the last of which are new; half a character at its end waits."""
        found = self._text(ids[self._begin :])
        window = found.rstrip(HALF)
        if window.startswith(self._known):
            new = window[len(self._known) :]
            self.said, self._known = self.said + new, window
            if new.strip() and window == found:  # behind blanks alone a next one would be lost
                self._begin, self._end = self._end, len(ids)
                self._known = self._text(ids[self._begin :])
        elif window == found:
            self._begin = self._end = 0
            self.said = self._known = self._text(ids)
        return self.said
