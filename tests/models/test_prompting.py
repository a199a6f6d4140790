"""Which words virtual tokens begin as."""

from typing import Any

from penjing.models.load import load
from penjing.models.prompting import word_ids


def test_a_run_as_base_has_its_tokenizer_beside_its_weights(tuned: Any) -> None:
    base = load(str(tuned("full").folder))
    said = base.tokenizer("my parcel is late", add_special_tokens=False)["input_ids"]
    assert base.tokenizer.unk_token_id not in said
    assert word_ids(base.trunk, len(said), "my parcel is late").tolist() == said
