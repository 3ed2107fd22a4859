"""What the server imports from which cells are forked: no computing here, and no threads."""

import numpy  # noqa: F401
import scipy.stats  # noqa: F401
import tokenizers  # noqa: F401
import torch
import torch._dynamo  # noqa: F401  # which optimisers import when they are first used

import reference_model.model  # noqa: F401
