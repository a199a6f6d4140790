"""Pruned weights held without their zeros."""

from __future__ import annotations

from penjing.compressor import Compressor, Held, Rehearsal, Shrunk
from penjing.compressors.calibrating import bias_of, plain_linears
from penjing.errors import NotSupported
from penjing.models.slim import weight_of
from penjing.models.sparse import Sparse, bytes_of, cheaper


def sparse() -> Compressor:
    """Hold linear layers whose weights were pruned without the zeros; every weight comes back to the bit.

    It comes after a step that prunes (`wanda > sparse`). Layers that would not get smaller stay as they are.
    """

    def shrink(held: Held, rehearsal: Rehearsal) -> Shrunk:
        trunk, names = held.model.trunk, plain_linears(held)
        n_weights = n_left = n_held = 0
        # GPT-2's Conv1D adds its products in another order
        exact = all(type(trunk.get_submodule(name)).__name__ != "Conv1D" for name in names)
        for name in names:
            weight = weight_of(trunk, name)
            n_out, n_in = weight.shape
            n = int(weight.count_nonzero())
            n_weights, n_left = n_weights + weight.numel(), n_left + n
            if bytes_of(n_in, n_out, n, cheaper(n_in, n_out, n)) < 4 * weight.numel():
                trunk.set_submodule(name, Sparse.of(weight, bias_of(trunk, name)))
                n_held += 1
        if not n_held:
            raise NotSupported(
                f"Weights with zeros were wanted, at least one in 32; of the {n_weights:,} weights of "
                f"{len(names)} linear layers {n_weights - n_left:,} are 0. Prune first: `wanda>sparse`."
            )
        return Shrunk(
            held, {"layers": n_held, "of": len(names), "zeros": 1 - n_left / n_weights}, exact=exact
        )

    return Compressor("sparse", shrink)
