"""The cheap baseline of search: BM25 (Robertson & Zaragoza 2009) over words, or over characters and pairs of
them where a script has no spaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from penjing.baseline import is_unspaced

K1, B = 1.2, 0.75


def bm25(texts: Sequence[str]) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """A function from queries to their scores of all texts, (queries, texts); 0 where no text has a word."""
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import CountVectorizer

    if is_unspaced(texts):
        counter = CountVectorizer(analyzer="char", ngram_range=(1, 2), dtype=np.float32)
    else:
        counter = CountVectorizer(token_pattern=r"(?u)\b\w+\b", dtype=np.float32)
    try:
        counts_NF = csr_matrix(counter.fit_transform(texts))
    except ValueError:  # not one word in all texts, such as rows of emoji
        return lambda queries: np.zeros((len(queries), len(texts)), np.float32)
    n = counts_NF.shape[0]
    lengths = np.asarray(counts_NF.sum(1)).ravel()
    in_texts = np.bincount(counts_NF.indices, minlength=counts_NF.shape[1])
    rarity = np.log(1 + (n - in_texts + 0.5) / (in_texts + 0.5))
    weights = counts_NF.copy()
    rows = np.repeat(np.arange(n), np.diff(counts_NF.indptr))
    damped = K1 * (1 - B + B * lengths / max(float(lengths.mean()), 1e-9))
    weights.data = (
        rarity[counts_NF.indices] * counts_NF.data * (K1 + 1) / (counts_NF.data + damped[rows])
    ).astype(np.float32)

    def score(queries: Sequence[str]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = (counter.transform(queries) @ weights.T).toarray()
        return found

    return score
