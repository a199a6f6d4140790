"""Answers texts with onnxruntime, tokenizers and numpy alone; lies beside model.onnx, tokenizer.json and
labels.json.

    python run.py "where is my parcel?" "I was charged twice"
    cat texts.txt | python run.py            # a text a line; of pairs a line of JSON, ["first", "second"]

One line of JSON an answer. From Python:  from run import Model; Model("folder").answer(["a text"])
"""

import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

AT_ONCE = 64  # texts in one pass, of like length, so that little is padding


class Model:
    """A folder, opened."""

    def __init__(self, folder, threads=0):
        folder = Path(folder)
        self.about = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
        self.words = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.words.no_padding()
        self.words.enable_truncation(self.about["max_length"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or int(os.environ.get("OMP_NUM_THREADS", 0))
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def outputs(self, texts):
        """(n, C) numbers of the graph, in the order of the texts (or pairs of texts)."""
        read = [self._read(text) for text in texts]
        order = sorted(range(len(read)), key=lambda i: len(read[i].ids))
        found = [None] * len(read)
        for begin in range(0, len(order), AT_ONCE):
            rows = order[begin : begin + AT_ONCE]
            for row, values in zip(rows, self._pass([read[i] for i in rows]), strict=True):
                found[row] = values
        return np.array(found)

    def _read(self, text):
        if self.about["task"] != "pair":
            one = self.words.encode(text)
        else:
            one = self.words.encode(text[0], self.about["lead"] + text[1])
        if not one.ids:
            raise ValueError(f"the tokenizer makes nothing of the text {text!r}; leave it out")
        return one

    def _pass(self, read):
        longest = max(len(one.ids) for one in read)
        tables = {name: np.zeros((len(read), longest), np.int64) for name in self.about["inputs"]}
        tables["input_ids"][:] = self.about["pad"]
        for row, one in enumerate(read):
            n = len(one.ids)
            tables["input_ids"][row, :n] = one.ids
            tables["attention_mask"][row, :n] = 1
            if "token_type_ids" in tables:
                tables["token_type_ids"][row, :n] = one.type_ids
        return self.session.run(None, tables)[0]

    def answer(self, texts):
        """One answer a text, in the words of `penjing predict`."""
        if not texts:
            return []
        found = self.outputs(texts).astype(np.float64)
        if self.about["outputs"] == ["vectors"]:
            return [{"embedding": row.tolist()} for row in found]
        if self.about["numbers"]:
            return [self._numbers(row) for row in found]
        return [self._labels(row) if self.about["multi_label"] else self._label(row) for row in found]

    def _numbers(self, row):
        line = self.about["numbers"]
        told = np.array(line["shift"]) + np.array(line["stretch"]) * row
        told = np.clip(told, *line["within"]) if "within" in line else told
        return dict(zip(self.about["labels"], told.tolist(), strict=True))

    def _label(self, row):
        p = np.exp(row - row.max())
        p /= p.sum()
        best = int(p.argmax())
        scores = dict(zip(self.about["labels"], p.tolist(), strict=True))
        return {"label": self.about["labels"][best], "confidence": float(p[best]), "scores": scores}

    def _labels(self, row):
        names = self.about["labels"]
        p = [1 / (1 + math.exp(-x)) if x > -700 else 0.0 for x in row]
        limits = self.about["chosen"].get("thresholds") or [0.5] * len(names)
        sure = [x if x >= limit else 1 - x for x, limit in zip(p, limits, strict=True)]
        given = [name for name, x, limit in zip(names, p, limits, strict=True) if x >= limit]
        return {"labels": given, "confidence": min(sure), "scores": dict(zip(names, p, strict=True))}


def read(line):
    """The text of a line, or what it is JSON of: a text with line ends, or a pair."""
    try:
        found = json.loads(line) if line[:1] in '["' else line
    except ValueError:  # a text that begins like JSON: [URGENT] where is my parcel?
        return line
    pair = isinstance(found, list) and len(found) == 2 and all(isinstance(one, str) for one in found)
    return found if pair or isinstance(found, str) else line


def main():
    """Answer what the command line, or standard input, gives."""
    model = Model(Path(__file__).resolve().parent)
    given = sys.argv[1:]
    texts = given or [line for line in sys.stdin.read().split("\n") if line.strip()]
    if not given or model.about["task"] == "pair":
        texts = [read(text.strip("\ufeff\r")) for text in texts]
    for one in model.answer(texts):
        sys.stdout.write(json.dumps(one, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
