"""What runs in the process whose memory is measured while a folder is read."""

from pathlib import Path

import torch

from reference_model.checkpoints import load_huggingface


def load(folder: str, dtype: str) -> None:
    """Read the model of a folder, and let it go."""
    load_huggingface(Path(folder), getattr(torch, dtype))
