"""What a tokenizer puts around texts."""

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from penjing.models.queries import frame, pair_frame


def test_a_tokenizer_of_other_letters_without_an_unknown_one_keeps_its_frame() -> None:
    """It makes no token at all of `a`."""
    ids = {"[CLS]": 0, "[SEP]": 1, "我": 2, "退": 3}
    words = Tokenizer(models.BPE(ids, []))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    special = [(word, ids[word]) for word in ("[CLS]", "[SEP]")]
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, cls_token="[CLS]", sep_token="[SEP]")
    assert tokenizer("a", add_special_tokens=False)["input_ids"] == []
    assert frame(tokenizer) == ((0,), (1,))
    assert pair_frame(tokenizer)[:3] == ((0,), (1,), (1,))
