"""Which class of transformers gives a family's trunk: of encoder-decoders the encoder alone, or both."""

from __future__ import annotations

from typing import Any

import torch


def auto_of(config: Any, whole: bool) -> Any:
    """The Auto class that gives a family's trunk: of some encoder-decoders the encoder alone."""
    from transformers import AutoModel, AutoModelForTextEncoding

    return AutoModelForTextEncoding if _halves(config) and not whole else AutoModel


def part_of(model: Any, config: Any, whole: bool) -> Any:
    """The encoder of an encoder-decoder that is not wanted whole; any other model as it is."""
    kept = whole or not config.is_encoder_decoder or _halves(config)
    return model if kept else model.get_encoder()


def encoder_alone(auto: Any, config: Any, whole: bool) -> Any | None:
    """The class that opens a folder which holds the encoder of a BART-like model alone, as a run of such a
    base leaves it; None where it holds something else.
    """
    if whole or not config.is_encoder_decoder or _halves(config):
        return None
    with torch.device("meta"):
        encoder = type(auto.from_config(config).get_encoder())
    return encoder if config.architectures == [encoder.__name__] else None


def says_by_decoder(config: Any) -> bool:
    """True for a family that transformers has as an encoder beside a decoder that answers."""
    from transformers import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING

    return type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING


def _halves(config: Any) -> bool:
    """True for an encoder-decoder whose encoder transformers gives as a model of its own."""
    from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING

    return type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING and says_by_decoder(config)
