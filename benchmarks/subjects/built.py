"""The class of the models that are built here, and of their configurations.

Experiments, instruments and workloads that build a model, or look into one, have it from here. So
this file alone says which class that is.
"""

from __future__ import annotations

from reference_model.config import GPTConfig as ModelConfig
from reference_model.model import GPT as Model

__all__ = ["Model", "ModelConfig"]
