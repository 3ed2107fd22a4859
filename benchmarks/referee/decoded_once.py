"""A codec's vectors, held as they are decoded: what is read again costs nothing again.

A text that is written token by token reads its whole past at each step. Quality asks what is read,
not what it costs; bytes and seconds are measured of the codecs themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reference_model.quantization.codec import Codec, Parts
from reference_model.quantization.turboquant import TurboQuant


class DecodedOnce(Codec):
    """What ``codec`` gives back, and in its basis. Its parts are float32, and nobody's bytes."""

    def __init__(self, codec: Codec) -> None:
        self.name, self.width, self.block = codec.name, codec.width, codec.block
        self.layout = ((codec.block * codec.width, torch.float32),)
        self.codec = codec

    @property
    def constants(self) -> tuple[Tensor, ...]:
        return self.codec.constants

    @property
    def bits_per_value(self) -> float:
        """Those of the codec."""
        return self.codec.bits_per_value

    def rotate(self, x: Tensor) -> Tensor:
        return self.codec.rotate(x)

    def unrotate(self, x: Tensor) -> Tensor:
        return self.codec.unrotate(x)

    def quantize(self, x: Tensor) -> Parts:
        decoded = self.codec.dequantize(self.codec.quantize(x))  # (…, T, D)
        return (decoded.unflatten(-2, (-1, self.block)).flatten(-2),)

    def dequantize(self, parts: Parts) -> Tensor:
        (held,) = parts
        return held.unflatten(-1, (self.block, self.width)).flatten(-3, -2)


def decoded_once(codec: Codec) -> Codec:
    """TurboQuant stays what it is: compiled code reads its codes as fast."""
    return codec if isinstance(codec, TurboQuant) else DecodedOnce(codec)
