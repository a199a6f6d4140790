"""The trunk as an ONNX graph, in fp32: for processors that OpenVINO does not know."""

from __future__ import annotations

from penjing.compressor import Compressor, Held, Rehearsal, Shrunk
from penjing.compressors.graphing import held_as, refuse
from penjing.models.compiled import library
from penjing.models.compiling import compiled_onnx


def onnx() -> Compressor:
    """Run the trunk as an ONNX graph in ONNX Runtime, as it is; last of a chain. Takes `penjing[export]`.

    Not in 8 bits: ONNX Runtime scales inputs by whoever shares the batch, and answers would depend on it.
    """

    def shrink(held: Held, rehearsal: Rehearsal) -> Shrunk:
        refuse(held)
        made = held_as(held, compiled_onnx(held.base))
        return Shrunk(made, {"onnxruntime": library("onnxruntime").__version__})

    return Compressor("onnx", shrink)
