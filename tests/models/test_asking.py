"""Queries and the heads that answer them, against transformers' own padded models and formulas by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from penjing.data.batches import pack
from penjing.errors import NotSupported, SpecError
from penjing.models import asking
from penjing.models.load import Base, load
from penjing.models.model import Model
from penjing.models.own_head import own_head
from penjing.models.queries import frame, read
from penjing.records import Tokens

pytestmark = pytest.mark.slow  # every test loads heads of several families

Tiny = Callable[..., Path]
CALLED = {"billing": "invoice", "delivery": "parcel", "account": "log in"}
TEXTS = ["my card was charged twice", "late", "the courier says it is lost on order 12"]
NLI = {"id2label": {0: "CONTRADICTION", 1: "neutral", 2: "ENTAILMENT"}, "num_labels": 3}


@pytest.fixture(scope="module")
def nli(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with an entailment head."""
    return with_outcomes(tiny("bert"), tmp_path_factory.mktemp("nli"))


def with_outcomes(base: Path, folder: Path) -> Path:
    """A model of the base's family with an entailment head."""
    config = transformers.AutoConfig.from_pretrained(base, **NLI)
    torch.manual_seed(1)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def asked(folder: Path, called: dict[str, str] = CALLED, **settings: Any) -> tuple[Base, asking.Asked]:
    base = load(str(folder))
    defaults: dict[str, Any] = {"how": "auto", "templates": None, "hypothesis": None}
    return base, asking.ask(base, called, **{**defaults, **settings})


def answers(base: Base, made: asking.Asked, texts: list[str] = TEXTS, *, limit: int = 128) -> torch.Tensor:
    """(S, C) logits of texts, all packed into one batch."""
    model = Model(base.trunk, made.head("cls"), base.way).eval()
    tokens = read(base.tokenizer, texts, made.queries, limit)
    with torch.no_grad():
        found: torch.Tensor = model(pack(tokens, np.arange(len(texts))))
    return found


def word_scores(folder: Path, kind: Any, rows: list[tuple[list[int], list[int], list[int]]]) -> torch.Tensor:
    """Mean log-probability of the tokens at the sites of each (ids, sites, tokens), by the whole model."""
    model = kind.from_pretrained(folder).eval()
    found = []
    for ids, sites, tokens in rows:
        with torch.no_grad():
            logp = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        found.append(torch.stack([logp[s, t] for s, t in zip(sites, tokens, strict=True)]).mean())
    return torch.stack(found)


def bare(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("bert", "mask"),
        ("roberta", "mask"),
        ("distilbert", "mask"),
        ("albert", "mask"),
        ("modernbert", "mask"),
        ("mpnet", "mask"),
        ("gpt2", "causal"),
        ("llama", "causal"),
        ("qwen3", "causal"),
    ],
)
def test_a_head_apart_from_its_trunk_scores_words_as_the_whole_model(
    family: str, kind: str, tiny: Tiny
) -> None:
    folder = tiny(family)
    auto = {"mask": "AutoModelForMaskedLM", "causal": "AutoModelForCausalLM"}[kind]
    whole = getattr(transformers, auto).from_pretrained(folder).eval()
    head = own_head(load(str(folder)), kind, weights=True).eval()
    ids = torch.arange(20, 29)[None]
    with torch.no_grad():
        states = getattr(whole, whole.base_model_prefix)(ids)[0][0]
        torch.testing.assert_close(head(states), whole(ids).logits[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "template", ["{text} It is about {mask}.", "About {mask}: {text}", "{mask} {text} !"]
)
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_label_words_of_several_tokens_count_by_their_mean_log_probability_at_the_masks(
    family: str, template: str, tiny: Tiny
) -> None:
    folder = tiny(family)
    base, made = asked(folder, how="mask", templates=[template])
    tok, rows = base.tokenizer, []
    for text in TEXTS:
        for words in CALLED.values():
            blank = " " if " {mask}" in template else ""
            wanted = bare(tok, blank + words)
            # the whole prompt as one string, so that nothing of the way it is put together is taken over
            whole = template.replace(f"{blank}{{mask}}", tok.mask_token * len(wanted)).replace("{text}", text)
            ids = tok(whole)["input_ids"]
            sites = [i for i, token in enumerate(ids) if token == tok.mask_token_id]
            assert len(sites) == len(wanted)
            rows.append((ids, sites, wanted))
    scores = word_scores(folder, transformers.AutoModelForMaskedLM, rows).view(len(TEXTS), -1)
    assert len({len(tokens) for _, _, tokens in rows}) > 1, "words of one length would prove little"
    torch.testing.assert_close(answers(base, made), scores.log_softmax(-1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_label_words_after_a_prompt_count_by_their_mean_log_likelihood(family: str, tiny: Tiny) -> None:
    folder, template = tiny(family), "{text}\nTopic: {mask}"
    base, made = asked(folder, templates=[template])
    assert made.how == "causal"
    tok, rows = base.tokenizer, []
    begin, _ = frame(tok)
    for text in TEXTS:
        for words in CALLED.values():
            prompt = [*begin, *bare(tok, text), *bare(tok, "\nTopic:")]
            wanted = bare(tok, f" {words}")
            ids = [*prompt, *wanted]
            rows.append((ids, [len(prompt) - 1 + j for j in range(len(wanted))], wanted))
    scores = word_scores(folder, transformers.AutoModelForCausalLM, rows).view(len(TEXTS), -1)
    torch.testing.assert_close(answers(base, made), scores.log_softmax(-1), atol=1e-4, rtol=1e-4)


def test_templates_are_ensembled_by_the_mean_of_their_log_probabilities(tiny: Tiny) -> None:
    templates = ["{text} It is about {mask}.", "About {mask}: {text}"]
    alone = [answers(*asked(tiny("bert"), how="mask", templates=[one])) for one in templates]
    both = answers(*asked(tiny("bert"), how="mask", templates=templates))
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2, atol=1e-5, rtol=1e-5)


def test_the_prior_of_neutral_texts_is_taken_off(tiny: Tiny) -> None:
    base, made = asked(tiny("bert"), how="mask", templates=["{text} It is about {mask}."])
    plain = answers(base, made).softmax(-1)
    neutral = answers(base, made, ["N/A", "-"]).softmax(-1).mean(0)
    head: Any = made.head("cls")
    model = Model(base.trunk, head, base.way).eval()
    with torch.no_grad():
        batch = pack(read(base.tokenizer, ["N/A", "-"], made.queries, 128), np.arange(2))
        head.calibrate(head.scores(model.states(batch), batch.lengths))
        batch = pack(read(base.tokenizer, TEXTS, made.queries, 128), np.arange(3))
        found = model(batch).softmax(-1)
    wanted = plain / neutral
    torch.testing.assert_close(found, wanted / wanted.sum(1, keepdim=True), atol=1e-5, rtol=1e-5)


def test_the_prior_of_words_that_are_hardly_ever_said_is_a_number(tiny: Tiny) -> None:
    _, made = asked(tiny("bert"), how="mask", templates=["{text} It is about {mask}."])
    head: Any = made.head("cls")
    scores = torch.zeros(2, *head.prior.shape)
    scores[..., 0] = -300.0  # as a probability, 0 in fp32
    head.calibrate(scores)
    wanted = scores.double().softmax(-1).mean(0).log()
    torch.testing.assert_close(head.prior.double(), wanted, atol=1e-4, rtol=1e-6)


@pytest.mark.parametrize("template", ["{text} It is about {mask}.", "About {mask}: {text}"])
def test_only_the_text_is_cut_and_every_mask_survives(template: str, tiny: Tiny) -> None:
    base, made = asked(tiny("bert"), how="mask", templates=[template])
    long = "my parcel is late " * 200
    tokens = read(base.tokenizer, [long, "late"], made.queries, 40)
    assert tokens.cut == 1
    assert tokens.parts is not None
    assert tokens.parts[0].tolist() == [40] * len(made.queries)
    mask = base.tokenizer.mask_token_id
    batch = pack(tokens, np.arange(2))
    for query, ids in zip(made.queries * 2, batch.ids.split(batch.lengths.tolist()), strict=True):
        assert [int(ids[s]) for s in query.sites] == [mask] * len(query.sites)
        assert int((ids == mask).sum()) == len(query.sites)
    whole = answers(base, made, [long], limit=40)
    short = base.tokenizer.decode(bare(base.tokenizer, long)[:60])
    torch.testing.assert_close(whole, answers(base, made, [short], limit=40))


def test_a_row_read_as_several_sequences_is_answered_alike_alone_and_among_others(tiny: Tiny) -> None:
    base, made = asked(tiny("bert"), how="mask")
    together = answers(base, made)
    alone = torch.cat([answers(base, made, [text]) for text in TEXTS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_the_order_of_labels_changes_nothing_but_the_order_of_answers(tiny: Tiny) -> None:
    turned = dict(reversed(CALLED.items()))
    for family in ("bert", "gpt2"):
        found = answers(*asked(tiny(family)))
        torch.testing.assert_close(answers(*asked(tiny(family), turned)).flip(1), found, atol=1e-5, rtol=1e-5)


def entailment(folder: Path, texts: list[str], *, limit: int = 128) -> torch.Tensor:
    """(S, C, 3) logits of transformers' own pairs, each alone."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tok = transformers.AutoTokenizer.from_pretrained(folder)
    found = []
    for text in texts:
        for words in CALLED.values():
            pair = tok(
                text,
                asking.HYPOTHESIS.format(words),
                return_tensors="pt",
                truncation="only_first",
                max_length=limit,
            )
            with torch.no_grad():
                found.append(model(**pair).logits[0])
    return torch.stack(found).view(len(texts), len(CALLED), 3)


def test_entailment_is_that_of_the_pair_and_the_premise_alone_is_cut(nli: Path) -> None:
    base, made = asked(nli)
    assert made.how == "entail"
    long = "my parcel is late " * 60
    found = answers(base, made, [*TEXTS, long], limit=64)
    torch.testing.assert_close(found, entailment(nli, [*TEXTS, long], limit=64)[..., 2], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_a_decoder_entails_by_its_last_state(family: str, tiny: Tiny, tmp_path: Path) -> None:
    folder = with_outcomes(tiny(family), tmp_path)
    found = answers(*asked(folder))
    torch.testing.assert_close(found, entailment(folder, TEXTS)[..., 2], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_entailment_that_a_decoder_answers_is_refused(family: str, tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(NotSupported, match=r"answers by its decoder.*Take an NLI model of BERT's"):
        asked(with_outcomes(tiny(family), tmp_path))


def test_with_several_labels_each_is_entailment_against_contradiction(nli: Path) -> None:
    found = answers(*asked(nli, multi_label=True))
    logits = entailment(nli, TEXTS)
    pairs = logits[..., [0, 2]].softmax(-1)[..., 1]
    torch.testing.assert_close(found.sigmoid(), pairs, atol=1e-5, rtol=1e-4)
    fewer = {k: CALLED[k] for k in ("billing", "account")}
    torch.testing.assert_close(answers(*asked(nli, fewer, multi_label=True)), found[:, [0, 2]])


def test_auto_takes_the_way_that_a_base_was_made_for(tiny: Tiny, nli: Path, tmp_path: Path) -> None:
    found = {family: asked(tiny(family))[1].how for family in ("bert", "roberta", "gpt2", "qwen3", "t5")}
    assert found == {
        "bert": "mask",
        "roberta": "mask",
        "gpt2": "causal",
        "qwen3": "causal",
        "t5": "nearest",
    }
    assert asked(nli)[1].how == "entail"
    encoder = tmp_path / "encoder"
    base = load(str(tiny("bert")))
    base.trunk.save_pretrained(encoder)  # type: ignore[operator]
    base.tokenizer.save_pretrained(encoder)
    assert asked(encoder)[1].how == "nearest"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"templates": ["{text} is good"]}, r"`\{text\}` and `\{mask\}` once each; it is '\{text\} is good'"),
        ({"templates": ["about {mask}"]}, r"once each; it is 'about \{mask\}'.*Write such as"),
        ({"templates": ["{text} {mask} {mask}"]}, "once each"),
        ({"hypothesis": "about {}"}, "`hypothesis` is given.*`how: mask`.*Leave it out"),
        ({"how": "nearest", "templates": ["{text} {mask}"]}, "`templates` is given.*`how: nearest`"),
        ({"multi_label": True}, "`multi_label` is given.*only entail do"),
        ({"called": {"a": "parcel", "b": "parcel"}}, "`a` and `b` are asked for by the same words"),
        ({"called": {"a": "parcel", "b": "龘"}}, r"The label `b` is asked for as .龘..*knows none"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], text: str, tiny: Tiny) -> None:
    with pytest.raises(SpecError, match=text):
        asked(tiny("bert"), **settings)


def test_a_template_that_goes_on_after_the_gap_is_refused_for_a_causal_base(tiny: Tiny) -> None:
    with pytest.raises(SpecError, match=r"must end with `\{mask\}`.*it is '\{text\} is \{mask\}\.'"):
        asked(tiny("gpt2"), templates=["{text} is {mask}."])


def test_a_hypothesis_without_a_place_for_the_label_is_refused(nli: Path) -> None:
    with pytest.raises(SpecError, match=r"`hypothesis` must hold `\{\}` once.*it is 'about it'"):
        asked(nli, hypothesis="about it")


def test_a_base_without_what_a_way_needs_is_refused(tiny: Tiny) -> None:
    with pytest.raises(NotSupported, match=r"`how: mask` needs a base with a mask token.*has none"):
        asked(tiny("gpt2"), how="mask")
    with pytest.raises(NotSupported, match=r"`how: entail` needs a base tuned for entailment.*LABEL_0"):
        asked(tiny("bert"), how="entail")
    _, made = asked(tiny("electra"), how="mask")
    with pytest.raises(NotSupported, match=r"lacks its weights \(generator_lm_head.bias"):
        made.head("cls")
    _, made = asked(tiny("t5"), how="causal", templates=["{text} {mask}"])
    with pytest.raises(NotSupported, match="T5EncoderModel has none in transformers"):
        made.head("cls")


def test_a_prompt_that_leaves_no_room_for_the_text_is_refused(tiny: Tiny) -> None:
    base, made = asked(tiny("bert"), how="mask", templates=["{text} It is about this: {mask}."])
    with pytest.raises(SpecError, match=r"`data.max_length` is 8, which leaves no room for the text"):
        read(base.tokenizer, TEXTS, made.queries, 8)


def test_rows_taken_keep_their_parts_and_segments(nli: Path) -> None:
    base, made = asked(nli)
    tokens = read(base.tokenizer, TEXTS, made.queries, 128)
    taken = tokens.take(np.array([2, 0]))
    again = read(base.tokenizer, [TEXTS[2], TEXTS[0]], made.queries, 128)
    for name in ("ids", "starts", "parts", "segments"):
        np.testing.assert_array_equal(getattr(taken, name), getattr(again, name))
    assert isinstance(tokens, Tokens)
