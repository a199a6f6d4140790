"""Translators of many languages say what transformers' `generate` says in the one that is asked for."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common import told
from penjing import load as open_bundle
from penjing import plugin, tune
from penjing.errors import SpecError
from penjing.models.decoding import Decoding
from penjing.models.flow import Flow, line_of
from penjing.models.generate import generate, stream
from penjing.models.languages import languages_of
from penjing.models.load import load
from penjing.models.model import Model
from penjing.task import Task

KINDS = {  # a tokenizer, its model, two languages
    "mbart": ("MBartTokenizer", "MBart", "en_XX", "ro_RO"),
    "mbart50": ("MBart50Tokenizer", "MBart", "en_XX", "zh_CN"),
    "nllb": ("NllbTokenizer", "M2M100", "eng_Latn", "zho_Hans"),
}
SIGNS = "abcdefghijklmnopqrstuvwxyz"
RULES: dict[str, tuple[Decoding, dict[str, Any]]] = {
    "greedy": (Decoding(max_new=10), {}),
    "beams": (Decoding(max_new=10, beams=3, length_penalty=2.0), {"num_beams": 3, "length_penalty": 2.0}),
    "rules": (
        Decoding(max_new=10, min_new=5, repetition_penalty=1.6),
        {"min_new_tokens": 5, "repetition_penalty": 1.6},
    ),
}


@pytest.fixture
def translator(tmp_path: Path) -> Callable[[str], Path]:
    """`translator("nllb")` -> a folder with a random model of two layers, its tokenizer beside it."""

    def make(kind: str) -> Path:
        import transformers

        words, family, _, _ = KINDS[kind]
        pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *SIGNS]
        vocab: Any = {piece: i for i, piece in enumerate(pieces)}
        if kind != "nllb":
            vocab = [(piece, -float(i)) for i, piece in enumerate(pieces)]
        tokenizer: Any = getattr(transformers, words)(vocab=vocab, model_max_length=64)
        sides = {f"{side}_{key}": n for side in ("encoder", "decoder") for key, n in _SIDE.items()}
        config = getattr(transformers, f"{family}Config")(
            vocab_size=len(tokenizer), d_model=32, max_position_embeddings=64, init_std=0.3,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=None if kind == "mbart" else tokenizer.eos_token_id, **sides,
        )  # fmt: skip
        torch.manual_seed(3)
        model: Any = getattr(transformers, f"{family}ForConditionalGeneration")(config)
        model.generation_config = transformers.GenerationConfig(**{k: getattr(config, k) for k in _IDS})
        model.save_pretrained(tmp_path / kind)
        tokenizer.save_pretrained(tmp_path / kind)
        return tmp_path / kind

    return make


_SIDE = {"layers": 2, "attention_heads": 4, "ffn_dim": 64}
_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")


def made(
    folder: Path, kind: str, *, turned: bool = False, task_name: str = "translate"
) -> tuple[Any, Model, list[list[int]], list[int]]:
    """A base, its model that answers in a language, sources and the ids that stop."""
    source, target = KINDS[kind][2:][:: -1 if turned else 1]
    settings = {"source_language": source, "target_language": target}
    task: Task = plugin.build("tasks", plugin.Choice(task_name, settings))
    base = load(str(folder), whole=True)
    assert task.bind is not None
    task = task.bind(base, [], weights=True)
    model = Model(base.trunk, task.head(), base.way).prepare("fp32").eval()
    rows = base.tokenizer(["so it is", "a", "who asked for this"])["input_ids"]
    return base, model, rows, [base.tokenizer.eos_token_id]


@pytest.mark.parametrize("rule", [*RULES])
@pytest.mark.parametrize("kind", [*KINDS])
def test_an_answer_in_a_language_is_that_of_transformers(
    translator: Callable[[str], Path], kind: str, rule: str
) -> None:
    import transformers

    folder, (how, asked) = translator(kind), RULES[rule]
    _, model, rows, stop = made(folder, kind)
    source, target = KINDS[kind][2:]
    words: Any = transformers.AutoTokenizer.from_pretrained(folder, src_lang=source)
    theirs: Any = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    mark = words.convert_tokens_to_ids(target)
    begun = {"decoder_start_token_id": mark} if kind == "mbart" else {
        "decoder_start_token_id": words.eos_token_id, "forced_bos_token_id": mark
    }  # fmt: skip
    found = generate(model, rows, how, stop=stop)
    for row, said in zip(rows, found, strict=True):
        ids = torch.tensor([row])
        wanted = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False,
            bad_words_ids=[[words.pad_token_id]], **begun, **asked,
        )[0].tolist()  # fmt: skip
        wanted = wanted[1:] if kind == "mbart" else wanted[2:]
        wanted = wanted[: wanted.index(stop[0])] if stop[0] in wanted else wanted
        assert list(said[0].ids) == wanted
    assert rows == words(["so it is", "a", "who asked for this"])["input_ids"]


@pytest.mark.parametrize("kind", [*KINDS])
def test_streams_flows_and_reading_again_say_the_same(translator: Callable[[str], Path], kind: str) -> None:
    _, model, rows, stop = made(translator(kind), kind)
    how = Decoding(max_new=8)
    wanted = [one[0].ids for one in generate(model, rows, how, stop=stop)]
    assert [one[0].ids for one in generate(model, rows, how, stop=stop, cached=False)] == wanted
    assert [tuple(stream(model, row, how, stop=stop)) for row in rows] == wanted
    with torch.inference_mode():
        flow, line = Flow(model), line_of(model, rows[0], how, stop=stop)
        flow.join([line])
        while flow.lines:
            flow.step()
    assert line.answer.ids == wanted[0]


def test_another_language_is_another_answer(translator: Callable[[str], Path]) -> None:
    folder = translator("nllb")
    one, other = (made(folder, "nllb", turned=turned) for turned in (False, True))
    assert one[2] != other[2]
    how = Decoding(max_new=8)
    assert generate(one[1], one[2], how, stop=[2]) != generate(other[1], one[2], how, stop=[2])


@pytest.mark.parametrize("task_name", ["summarize", "generate", "answer_in_words"])
def test_every_task_that_says_texts_has_the_languages(
    task_name: str, translator: Callable[[str], Path]
) -> None:
    folder, how = translator("nllb"), Decoding(max_new=8)
    for turned in (False, True):
        _, model, rows, stop = made(folder, "nllb", turned=turned)
        _, other, read, _ = made(folder, "nllb", turned=turned, task_name=task_name)
        assert read == rows
        assert generate(other, rows, how, stop=stop) == generate(model, rows, how, stop=stop)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_learns_marked_pairs_and_its_bundle_speaks_the_language(
    translator: Callable[[str], Path], kind: str, method: str, tmp_path: Path
) -> None:
    import transformers

    rows = tmp_path / "rows.csv"
    rows.write_text("en,other\n" + "".join(f"{a} {b},{b}{b}\n" for a in SIGNS for b in "xyz"))
    source, target = KINDS[kind][2:]
    task = {"translate": {"longest": 8, "source_language": source, "target_language": target}}
    run = tune(
        base=translator(kind), train=rows, out=tmp_path / "runs", device="cpu", precision="fp32", steps=40,
        evals=1, batch=16, lr=5e-3, task=task, method=method, max_length=32,
    )  # fmt: skip
    bundle = open_bundle(run.folder, device="cpu", precision="fp32")
    (answer,) = bundle.predict(["a x"])
    words: Any = bundle.tokenizer
    assert (words.src_lang, words.tgt_lang) == (source, target)
    if method == "full":
        saved: Any = transformers.AutoModelForSeq2SeqLM.from_pretrained(run.folder / "best/trunk").eval()
        ids = torch.tensor(words(["a x"])["input_ids"])
        said = saved.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        assert words.decode(said[0], skip_special_tokens=True).strip() == answer["text"]


def test_languages_are_known_by_their_codes(translator: Callable[[str], Path]) -> None:
    for kind, (_, _, *codes) in KINDS.items():
        known = languages_of(load(str(translator(kind)), whole=True).tokenizer)
        assert {*codes} <= {*known}
    m2m100 = SimpleNamespace(src_lang="en", unk_token_id=3, lang_code_to_id={"en": 5, "fr": 6, "xx": 3})
    assert languages_of(m2m100) == {"en": 5, "fr": 6}
    assert languages_of(SimpleNamespace()) == {}


@pytest.mark.parametrize(
    ("name", "kind", "settings", "parts"),
    [
        (
            "translate",
            "nllb",
            {},
            ["`translate.source_language`", "none is named", "202 languages (ace_Arab", "Say both"],
        ),
        ("summarize", "nllb", {}, ["`summarize.source_language`", "none is named"]),
        (
            "translate",
            "nllb",
            {"source_language": "eng_Latn", "target_language": "zho_Hant_"},
            ["`translate.target_language` is 'zho_Hant_'", "Did you mean `zho_Hant`?", "codes"],
        ),
        (
            "generate",
            "marian",
            {"target_language": "de"},
            ["`generate.target_language` is 'de'", "marks no languages", "Leave it out"],
        ),
    ],
)
def test_a_language_that_is_missing_unknown_or_ignored_is_refused(
    name: str,
    kind: str,
    settings: dict[str, str],
    parts: list[str],
    translator: Callable[[str], Path],
    tiny: Any,
) -> None:
    base = load(str(tiny(kind) if kind == "marian" else translator(kind)), whole=True)
    task: Task = plugin.build("tasks", plugin.Choice(name, settings))
    assert task.bind is not None
    with pytest.raises(SpecError) as error:
        task.bind(base, [], weights=True)
    told(error, *parts)
