"""Where operators leave what they compute, and in which dtype."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FEW = 16  # numbers: a slope of each head, how many steps an optimiser has taken


class Places(TorchDispatchMode):
    """Devices and dtypes of what is computed within, but for a few numbers of the host's."""

    def __init__(self) -> None:
        super().__init__()
        self.devices: set[str] = set()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, torch.Tensor) and each.numel() > FEW:
                self.devices.add(each.device.type)
                self.dtypes.add(each.dtype)
        return result
