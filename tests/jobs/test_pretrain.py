"""Learning from text: a run from a corpus, the base that it leaves, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common import told
from penjing import evaluate, load, pretrain, tune
from penjing import run as runs
from penjing import spec as specs
from penjing.errors import DataError, NotSupported, SpecError
from penjing.jobs.feeding import opened_corpus, texts_of
from penjing.jobs.news import silent
from penjing.jobs.pretrain import asked
from penjing.jobs.training import advance, begin, finish
from penjing.models.load import load as open_base

Tiny = Callable[..., Path]
LINE = "my parcel is late and the courier says it is lost on order {}. the invoice shows a wrong fee. "


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two sources of 24 documents."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name, first in (("mail", 0), ("chat", 100)):
        documents = ["".join(LINE.format(i) for i in range(n, n + 4)) for n in range(first, first + 24)]
        (folder / f"{name}.txt").write_text("\n\n".join(documents), encoding="utf-8")
    return folder


@pytest.fixture
def asks(tiny: Tiny, corpus: Path, tmp_path: Path) -> dict[str, Any]:
    """A spec of seconds."""
    return {
        "base": str(tiny("bert")), "data": {"train": str(corpus), "max_length": 32}, "device": "cpu",
        "precision": "fp32", "out": str(tmp_path / "runs"), "train": {"steps": 6, "batch": 8, "evals": 2},
    }  # fmt: skip


@pytest.mark.parametrize(
    "task",
    [
        "masked",
        pytest.param({"masked": {"units": "words"}}, marks=pytest.mark.slow),
        pytest.param({"masked": {"units": "spans", "across": True}}, marks=pytest.mark.slow),
        pytest.param("sentence_order", marks=pytest.mark.slow),
        pytest.param("next_sentence", marks=pytest.mark.slow),
        pytest.param("contrastive", marks=pytest.mark.slow),
        {"mixed": {"of": ["masked", "sentence_order"]}},
    ],
)
def test_an_objective_s_run_leaves_a_base_for_every_other_job(
    asks: dict[str, Any], tiny_csv: Path, task: Any
) -> None:
    asks["train"] |= {"lr": 3e-3, "steps": 20}
    run = pretrain({**asks, "task": task})
    result = run.result
    if task not in ("next_sentence", "contrastive"):  # these texts are too much alike
        assert result["after"]["values"]["loss"] < result["before"]["values"]["loss"]
    assert (run.folder / "report.html").is_file()
    assert run.read("data.json")["sources"][0]["tokens"] > 100
    tuned = tune(base=str(run.folder), train=str(tiny_csv), out=asks["out"], steps=2, evals=1, device="cpu")
    assert tuned.result["state"] == "done"
    with pytest.raises(
        SpecError, match=r"`label` says how labelled rows are read; `\w+` is judged on a corpus"
    ):
        evaluate(run, asks["data"]["train"], label="kind")
    found = evaluate(run, asks["data"]["train"])
    assert found["values"]["loss"] > 0
    with pytest.raises(NotSupported, match="answers nothing by itself"):
        load(run.folder).predict(["late"])


@pytest.mark.parametrize(
    ("task", "pooling"),
    [
        ("masked", "mean"),
        pytest.param({"mixed": {"of": ["masked", "sentence_order"]}}, "cls", marks=pytest.mark.slow),
    ],
)
def test_a_grown_encoder_is_summed_up_by_what_its_objective_taught(
    asks: dict[str, Any], tiny: Tiny, task: Any, pooling: str
) -> None:
    shape = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 1}
    asks |= {"base": "bert-tiny", "tokenizer": str(tiny("bert")), "shape": shape, "task": task}
    asks["train"] |= {"steps": 1, "evals": 1}
    run = pretrain(asks)
    assert open_base(str(run.folder)).pooling == pooling


@pytest.mark.slow
def test_a_preset_grows_from_random_weights(asks: dict[str, Any], tiny: Tiny) -> None:
    asks |= {"base": "gpt-nano", "tokenizer": str(tiny("gpt2")), "shape": {"n_embd": 24, "n_positions": 32}}
    asks["train"] |= {"lr": 1e-2, "steps": 20}
    run = pretrain(asks)
    assert run.spec.task.name == "causal"  # what suits the base
    values = run.result["after"]["values"]
    assert values["loss"] < run.result["before"]["values"]["loss"]
    assert values["bits_per_byte"] < 8
    assert run.result["shown"][0]["found"]
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(run.folder / "best/trunk")
    ours = load(run.folder, precision="fp32")
    assert torch.equal(theirs.lm_head.weight, ours.model.head.out.weight)


@pytest.mark.parametrize("task", ["masked", pytest.param("causal", marks=pytest.mark.slow)])
def test_a_run_carried_in_pieces_equals_one_carried_at_once(
    asks: dict[str, Any], tiny: Tiny, tmp_path: Path, task: str
) -> None:
    asks |= {"task": task, "base": str(tiny("gpt2" if task == "causal" else "bert"))}
    states = []
    for name, stops in (("whole", [None]), ("pieces", [1, 4, None])):
        spec = specs.read({**asks, "name": name})
        run = runs.new(spec)
        for stop in stops:
            it = begin(run, opened_corpus(run.spec, silent))
            advance(it, until=stop)
        states.append(it.made.model.state_dict())
        finish(it)
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))


@pytest.mark.slow
def test_micro_batches_change_nothing(asks: dict[str, Any]) -> None:
    asks |= {"task": "masked"}
    found = []
    for micro in (64, 4096):
        settings = {**asks["train"], "micro_tokens": micro, "dropout": 0.0, "steps": 2}
        run = pretrain({**asks, "train": settings, "name": f"m{micro}"})
        found.append([line["loss"] for line in run.lines("log.jsonl")])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.slow
def test_weights_mix_sources(asks: dict[str, Any]) -> None:
    asks["data"] |= {"weights": {"mail": 3, "chat": 1}}
    job = opened_corpus(specs.read({**asks, "task": "masked"}))
    assert job.task.order is not None
    assert job.parts is not None
    targets = job.parts[0].targets
    rows = job.task.order(job.parts[0], 8, 0, 0)[0]
    mail = job.data.names.index("mail")
    assert (targets[rows, 0] == mail).sum() == 6


def test_sources_are_drawn_as_their_corpus_was_prepared_to_be(asks: dict[str, Any], tmp_path: Path) -> None:
    from penjing.jobs.corpus import prepare

    told: list[str] = []
    for name in ("mail", "chat"):
        (tmp_path / "raw" / name).mkdir(parents=True)
        text = "\n\n".join(f"{name} " + LINE.format(i) for i in range(20))
        (tmp_path / "raw" / name / "a.txt").write_text(text, encoding="utf-8")
    prepare(
        raw=str(tmp_path / "raw"), out=str(tmp_path / "c"), weights={"mail": 3, "chat": 1}, quality=None,
        twins={"near": None}, processes=1,
    )  # fmt: skip
    asks["data"] = {"train": str(tmp_path / "c"), "max_length": 32}
    job = opened_corpus(specs.read({**asks, "task": "masked"}), lambda news: told.append(news.text))
    assert job.task.order is not None
    assert job.parts is not None
    rows = job.task.order(job.parts[0], 8, 0, 0)[0]
    assert (job.parts[0].targets[rows, 0] == job.data.names.index("mail")).sum() == 6
    assert f"sources are drawn by the weights of {tmp_path / 'c'}: chat 0.250, mail 0.750" in told


def test_texts_are_read_in_the_encoding_that_is_told(asks: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("テスト".encode("shift_jis"))
    asks["data"] = {"train": str(tmp_path / "a.txt"), "encoding": "shift_jis"}
    assert [one.text for one in texts_of(specs.read({**asks, "task": "masked"})).train()] == ["テスト"]


def test_validation_texts_may_be_named(asks: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "held.txt").write_text(LINE.format(7) * 6, encoding="utf-8")
    asks["data"] |= {"valid": str(tmp_path / "held.txt")}
    job = opened_corpus(specs.read({**asks, "task": "masked"}))
    assert job.data.names[-1] == "held"
    assert set(job.parts[1].targets[:, 0]) == {len(job.data.names) - 1}  # type: ignore[index]


def test_held_out_documents_are_not_learned_from(asks: dict[str, Any]) -> None:
    asks["data"] |= {"valid_share": 0.3}
    texts = texts_of(specs.read({**asks, "task": "masked"}))
    train, valid = ({one.text for one in documents()} for documents in (texts.train, texts.valid))
    assert len(train) + len(valid) == 48
    assert 6 <= len(valid) <= 24
    assert not train & valid


@pytest.mark.slow
def test_one_long_text_is_cut_at_its_end(asks: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text(LINE.format(1) * 60, encoding="utf-8")
    asks["data"] = {"train": str(tmp_path / "one.txt"), "documents": "file", "max_length": 32}
    job = opened_corpus(specs.read({**asks, "task": {"masked": {"across": True}}}))
    assert any("no document could be held out" in note for note in job.data.notes)


@pytest.mark.slow
def test_what_an_objective_would_ignore_is_refused(asks: dict[str, Any], tiny_csv: Path) -> None:
    for key in ("test", "label", "delimiter"):
        given = {**asks["data"], key: str(tiny_csv) if key == "test" else "x"}
        with pytest.raises(SpecError) as error:
            opened_corpus(specs.read({**asks, "task": "masked", "data": given}))
        told(error, f"`data.{key}` is given", "learns from text alone", "Leave it out")


@pytest.mark.slow
def test_without_a_corpus_it_says_so(asks: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"`data.train` must name the corpus to learn from.*it is empty"):
        pretrain({**asks, "data": {}, "task": "masked"})


@pytest.mark.slow
def test_too_little_text_is_told(asks: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "small.txt").write_text("late", encoding="utf-8")
    with pytest.raises(DataError, match=r"gives 1 piece of 32 tokens; one to learn from and one to validate"):
        pretrain({**asks, "data": {"train": str(tmp_path / "small.txt"), "max_length": 32}, "task": "masked"})


def test_a_task_with_labels_is_not_pretrained(asks: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"`task` must be an objective.*it is `classify`.*penjing tune"):
        asked({**asks, "task": "classify"})


@pytest.mark.slow
def test_a_corpus_that_changed_is_not_gone_on_with(asks: dict[str, Any], corpus: Path) -> None:
    spec = specs.read({**asks, "task": "masked", "name": "stopped"})
    run = runs.new(spec)
    advance(begin(run, opened_corpus(run.spec, silent)), until=2)
    (corpus / "mail.txt").write_text("\n\n".join(LINE.format(i) * 3 for i in range(40)), encoding="utf-8")
    from penjing.jobs.train import resume

    with pytest.raises(NotSupported, match="are not those that"):
        resume(run.folder)


@pytest.mark.slow
def test_check_looks_at_the_corpus(asks: dict[str, Any]) -> None:
    from penjing import check

    found = check({**asks, "task": "masked"})
    assert not [one for one in found if one.state == "error"]
    assert any(one.about == "corpus" and "pieces of at most 32 tokens" in one.text for one in found)
    data = {**asks["data"], "train": "nowhere"}
    assert any(
        one.about == "corpus" and one.state == "error"
        for one in check({**asks, "data": data, "task": "masked"})
    )


@pytest.mark.slow
@pytest.mark.parametrize("task", ["masked", "sentence_order", {"mixed": {"of": ["masked", "next_sentence"]}}])
def test_the_five_promises_hold(asks: dict[str, Any], task: Any) -> None:
    from penjing.jobs.selfcheck import selfcheck

    assert [one for one in selfcheck({**asks, "task": task}) if not one.held] == []


@pytest.mark.slow
def test_a_search_over_objectives_is_refused(asks: dict[str, Any]) -> None:
    from penjing.chains.search import search

    asks["train"] |= {"lr": {"choose": [1e-4, 1e-3]}}
    with pytest.raises(NotSupported, match="learns from text alone"):
        search({**asks, "task": "masked"})


@pytest.mark.slow
def test_a_linear_probe_watches_what_a_base_becomes_of_use_for(asks: dict[str, Any], tiny_csv: Path) -> None:
    asks["data"] |= {"probe": str(tiny_csv)}
    run = pretrain({**asks, "task": "masked"})
    found = [line["values"]["probe_accuracy"] for line in run.lines("scores.jsonl")]
    assert len(found) == 2
    assert all(0.3 < score <= 1 for score in found)
    for place in ("before", "after"):
        assert 0.3 < run.result[place]["values"]["probe_accuracy"] <= 1


@pytest.mark.slow
def test_a_probe_of_one_label_is_refused(asks: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("text,label\n" + "late again,a\n" * 9, encoding="utf-8")
    asks["data"] |= {"probe": str(tmp_path / "one.csv")}
    with pytest.raises(DataError, match=r"must hold at least 3 rows of two labels; of 1 labels in 9 rows"):
        pretrain({**asks, "task": "masked"})


@pytest.mark.slow
@pytest.mark.parametrize("key", ["probe", "weights"])
def test_keys_of_a_corpus_are_refused_beside_rows(asks: dict[str, Any], tiny_csv: Path, key: str) -> None:
    value = {"a": 1} if key == "weights" else str(tiny_csv)
    with pytest.raises(SpecError, match=rf"`data.{key}` is for learning from a corpus.*`task: classify`"):
        tune({**asks, "task": "classify", "data": {"train": str(tiny_csv), key: value}})
