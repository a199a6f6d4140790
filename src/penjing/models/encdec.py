"""Encoder-decoders run whole: packed sources and packed answers to the decoder's states.

The decoder is taught with what it should have said: it reads the answer, one place to the right. BART-like
families run packed: the encoder over the sources, the decoder over the answers, cross-attention from each
answer to its own source (`models/across.py`). Whether a base can is found by trying it beside its padded run;
one that cannot is padded here, and nothing else changes.

Legend: S sequences, T tokens of sources, U tokens of answers, D width.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from penjing.errors import NotSupported
from penjing.models.layers import bare, stacks_of
from penjing.models.layout import Return, layout_of
from penjing.models.modes import FAILURES, evaluating
from penjing.models.packing import NAME, Way, native, not_ours, pad_of, unrun, why
from penjing.records import Side

LENGTHS = ((5, 3, 9, 4), (4, 8, 2, 7))  # of the trial: sources and answers


def is_whole(trunk: nn.Module) -> bool:
    """True for an encoder-decoder that has its decoder."""
    config: Any = bare(trunk).config
    return bool(getattr(config, "is_encoder_decoder", False)) and hasattr(bare(trunk), "decoder")


def start_of(trunk: nn.Module) -> int:
    """The token that a decoder begins with.

    Raises:
        NotSupported: the checkpoint names none.
    """
    start = getattr(bare(trunk).config, "decoder_start_token_id", None)
    if not isinstance(start, int):
        raise NotSupported(
            f"A decoder begins with a token that its checkpoint names; the config.json of this "
            f"{type(bare(trunk)).__name__} has no `decoder_start_token_id`. Add it (T5 and Marian begin with "
            "the padding token, BART with </s>); mBART begins with a language, which a task that says "
            "texts is told as `target_language`."
        )
    return start


def begin_of(model: Any) -> list[int]:
    """What a decoder beside an encoder reads before it says a word: its start, and the language to answer in
    where its head was told one (models/languages.py). Nothing where one decoder reads all."""
    if not is_whole(model.trunk):
        return []
    first = getattr(model.head, "first", None)
    return [start_of(model.trunk), *([] if first is None else [first])]


def unsaid(trunk: nn.Module, stop: Sequence[int]) -> tuple[int, ...]:
    """Ids that are never said: of an encoder-decoder its padding, if that does not stop. Marian's has a logit
    of 0, where those of most words are below; no answer is learned with it, so nothing pushes it down.
    """
    pad = getattr(bare(trunk).config, "pad_token_id", None) if is_whole(trunk) else None
    return (pad,) if isinstance(pad, int) and pad >= 0 and pad not in stop else ()


def shifted(ids: Tensor, lengths: Tensor, start: int) -> Tensor:
    """What a decoder reads to say these answers: each begins with `start` and lacks its last token, (U,)."""
    read = ids.roll(1)
    firsts = (lengths.cumsum(0) - lengths).to(ids.device)
    read[firsts] = start
    return read


def states(trunk: nn.Module, way: Way, ids: Tensor, lengths: Sequence[int], answer: Side) -> Tensor:
    """The decoder's last states of packed answers: ids (T,), answer ids (U,) -> (U, D).

    State u is what the token u of the answers is said from.

    Raises:
        NotSupported: a method has put a module around the trunk, which is made for one stack.
    """
    if getattr(trunk, "added", None) is not None:
        raise NotSupported(
            "A method for encoder-decoders was wanted; this one puts its own module around one stack of "
            "layers. Take `method: full`, `lora` or `bitfit`."
        )
    read = shifted(answer.ids, answer.lengths, start_of(trunk))
    sizes = answer.lengths.tolist()
    return (_packed if way.packed else _padded)(trunk, ids, lengths, read, sizes)


def _padded(
    trunk: nn.Module, ids: Tensor, lengths: Sequence[int], read: Tensor, sizes: Sequence[int]
) -> Tensor:
    pad = pad_of(trunk)
    sources, seen = padded(ids, lengths, pad)
    answers, said = padded(read, sizes, pad)
    out = trunk(
        input_ids=sources,
        attention_mask=seen.long(),
        decoder_input_ids=answers,
        decoder_attention_mask=said.long(),
        use_cache=False,
    ).last_hidden_state
    return Return.apply(out.reshape(-1, out.shape[-1]), said.flatten().nonzero().flatten())  # type: ignore[no-any-return]


def padded(ids: Tensor, lengths: Sequence[int], pad: int, *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Packed rows as a table, padded on the right or the left: ids and where tokens stand, (S, L) each."""
    longest = max(int(n) for n in lengths)
    size = torch.as_tensor(lengths, device=ids.device)[:, None]
    place = torch.arange(longest, device=ids.device)[None]
    there = place >= longest - size if left else place < size
    table = ids.new_full(there.shape, pad)
    table[there] = ids
    return table, there


def _packed(
    trunk: nn.Module,
    ids: Tensor,
    lengths: Sequence[int],
    read: Tensor,
    sizes: Sequence[int],
    *,
    reached: list[str] | None = None,
) -> Tensor:
    model = bare(trunk)
    told = {} if reached is None else {"reached": reached}
    source, own = layout_of(lengths, ids.device), layout_of(sizes, ids.device)
    with _placed(model.encoder, source.positions):
        memory = model.encoder(input_ids=ids[None], layout=source, **told).last_hidden_state
    with _placed(model.decoder, own.positions):
        out = model.decoder(
            input_ids=read[None],
            encoder_hidden_states=memory,
            layout=own,
            source=source,
            use_cache=False,
            **told,
        )
    return out.last_hidden_state[0]  # type: ignore[no-any-return]


@contextlib.contextmanager
def _placed(stack: nn.Module, positions: Tensor) -> Iterator[None]:
    """Inside, tables of positions are asked for these places, and not for 0, 1, 2, …"""

    def ask(module: nn.Module, args: Any, keywords: dict[str, Any]) -> Any:
        return args, {**keywords, "position_ids": positions}

    tables = [
        m
        for m in stack.modules()
        if isinstance(m, nn.Embedding) and "position_ids" in inspect.signature(m.forward).parameters
    ]
    hooks = [table.register_forward_pre_hook(ask, with_kwargs=True) for table in tables]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def how_to_run(trunk: nn.Module, *, tolerance: float = 1e-4) -> Way:
    """Try a tiny batch packed and padded, and say which way this encoder-decoder can be run. Leaves it set
    for that way.

    Raises:
        NotSupported: it does not even run padded.
    """
    config: Any = bare(trunk).config
    generator = torch.Generator().manual_seed(0)
    device = next(trunk.parameters()).device
    special = {getattr(config, f"{k}_token_id", None) for k in ("pad", "bos", "eos", "decoder_start")}
    allowed = torch.tensor([i for i in range(min(config.vocab_size, 5000)) if i not in special])
    ids, said = (
        allowed[torch.randint(len(allowed), (sum(some),), generator=generator)].to(device) for some in LENGTHS
    )
    read = shifted(said, torch.tensor(LENGTHS[1]), int(allowed[0]))  # mBART begins with no token of its own
    native(trunk)
    with evaluating(trunk), torch.no_grad():
        try:
            wanted = _padded(trunk, ids, LENGTHS[0], read, LENGTHS[1])
        except FAILURES as error:
            raise unrun(trunk, error) from error
        try:
            trunk.set_attn_implementation(NAME)  # type: ignore[operator]
            reached: list[str] = []
            found = _packed(trunk, ids, LENGTHS[0], read, LENGTHS[1], reached=reached)
            encoder, decoder = stacks_of(trunk)
            due = len(encoder) + 2 * len(decoder)
            reason = not_ours(found, wanted, tolerance, len(reached), due)
            if not reason:
                return Way(True)
        except FAILURES as error:
            reason = why(error)
    native(trunk)
    return Way(False, 0, reason)
