"""The plain way to read a compressed cache, beside which every other one is put."""

from torch import Tensor

from reference_model.attention import attend
from reference_model.quantization.kv_cache import QuantizedKVCache


class DecodeThenAttend(QuantizedKVCache):
    """Everything is decoded into the model's own basis first, and biases are added again."""

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        return attend(q, *self.update(layer, k, v), mask)
