"""The model that a run asks about, as experiments see it: they know no checkpoint and no text.

>>> subject = subject_of(settings)
>>> subject.model()  # in the run's dtype, on its device
>>> subject.windows(20, settings.seed)  # of the held-out text, in the model's own tokens
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer
from torch import Tensor

from benchmarks.data.assets import play_texts
from benchmarks.experiments.experiment import REFERENCE, Settings
from benchmarks.instruments.texts import encode, play_windows, reference_tokens
from benchmarks.instruments.windows import Windows, spread, windows_of
from benchmarks.judging.claims import REFERENCE_LABEL
from benchmarks.subjects.built import Model, ModelConfig
from benchmarks.subjects.transformers_model import (
    PREFIX,
    TransformersModel,
    open_with_transformers,
)
from reference_model.checkpoints import load_reference, reference_tokenizer
from reference_model.config import preset
from reference_model.costs import parameter_count
from reference_model.errors import UserError

if TYPE_CHECKING:
    from reference_model.devices import Dtype
    from reference_model.models import OpenedModel

LONGEST_WINDOW = 512  # tokens; half of it for a large model
LARGE = 50_000_000  # parameters, above which a pass over the text takes half a minute


@dataclass(frozen=True)
class Subject:
    """A model by name, and the text that it is asked about: the held-out plays, or a file.

    ``parameters`` counts each weight once. Ask `subject_of` for one.
    """

    name: str
    tokenizer: Tokenizer
    parameters: int
    width: int  # of a head's keys and values
    context: int  # tokens that the model was made for
    device: str
    text: str | None = None
    own_config: ModelConfig | None = None  # None: transformers runs it
    in_dtype: Dtype = "float32"

    @property
    def is_built_here(self) -> bool:
        """Whether it is a model of ours, with our caches and a configuration."""
        return self.own_config is not None

    @property
    def label(self) -> str:
        """What a measurement of the model as it is says of it, beside those with outliers."""
        of_plays = self.name == REFERENCE and self.text is None and self.in_dtype == "float32"
        return REFERENCE_LABEL if of_plays else self.title

    @property
    def config(self) -> ModelConfig:
        """Of a model that is built here."""
        if self.own_config is None:
            raise UserError(f"{self.name} is run by transformers, and has no configuration here")
        return self.own_config

    @property
    def title(self) -> str:
        """As verdicts name it: that its weights were rounded before belongs to it."""
        return self._name if self.in_dtype == "float32" else f"{self._name} ({self.in_dtype})"

    @property
    def _name(self) -> str:
        if self.name == REFERENCE:
            return "our 6 M model"
        from reference_model.published import SMOLLM2

        if self.name == SMOLLM2.name:
            return SMOLLM2.title
        place = Path(self.name.removeprefix(PREFIX))
        return place.stem if place.suffix == ".gguf" else place.name

    @property
    def scale(self) -> str:
        """What its verdicts speak of."""
        text = "held-out plays" if self.text is None else Path(self.text).name
        size = f"{self.parameters / 1e6:,.3g} M parameters"
        return f"{self.title}, {size}, {text} in windows of {self.window} tokens"

    @property
    def is_large(self) -> bool:
        """Whether fewer and shorter pieces are read, so that a profile takes as long as it says."""
        return self.parameters > LARGE

    @property
    def window(self) -> int:
        """Tokens that are read at once, from an empty cache."""
        return min(self.context, LONGEST_WINDOW // (2 if self.is_large else 1))

    @property
    def dtype(self) -> torch.dtype:
        """Of the run."""
        return torch_dtype(self.in_dtype)

    def model(self, dtype: torch.dtype | None = None) -> Model:
        """A model that is built here, in evaluation mode, on the run's device and in its dtype.

        Others may hold it as well: change a copy.
        """
        dtype = dtype or self.dtype
        if self.name == REFERENCE:
            return load_reference(dtype).to(self.device)
        return _opened(self.name, dtype).model.to(self.device)

    def module(self, dtype: torch.dtype | None = None) -> Model | TransformersModel:
        """The same, or what transformers runs: both are called with tokens and a cache."""
        if not self.is_built_here:
            theirs = open_with_transformers(self.name, dtype or self.dtype)
            return theirs.model.to(self.device)
        return self.model(dtype)

    def windows(self, count: int | None = None, seed: int = 0) -> Windows:
        """``count`` windows of the text, spread over all of it; None: all of them."""
        if self.name == REFERENCE and self.text is None:
            return play_windows("test", self.window, count, seed)
        return spread(_all_windows(self), count, seed)

    def tokens(self) -> Tensor:
        """Token ids (N,) int64 of the whole text, on the run's device."""
        if self.name == REFERENCE and self.text is None:
            return reference_tokens("test").to(self.device)
        return torch.cat(_encoded(self)).to(self.device)


def torch_dtype(name: Dtype) -> torch.dtype:
    """PyTorch's, of a dtype's name."""
    dtype: torch.dtype = getattr(torch, name)
    return dtype


@cache
def subject_of(settings: Settings) -> Subject:
    """What the run asks about. Raises `UserError` where there is no such model or text."""
    name, asked = settings.model, (settings.device, settings.text)
    if name.startswith(PREFIX):
        theirs = open_with_transformers(name, torch_dtype(settings.dtype))
        size = sum(p.numel() for p in theirs.model.parameters())
        made_for = theirs.width, theirs.context
        return Subject(name, theirs.tokenizer, size, *made_for, *asked, None, settings.dtype)
    if name == REFERENCE:
        config, tokenizer = preset("reference"), reference_tokenizer()
    else:
        ours = _opened(name, torch_dtype(settings.dtype))
        config, tokenizer = ours.model.config, ours.tokenizer
    size, made_for = parameter_count(config), (config.d_head, config.context_length)
    return Subject(name, tokenizer, size, *made_for, *asked, config, settings.dtype)


@lru_cache(maxsize=2)
def _opened(name: str, dtype: torch.dtype) -> OpenedModel:
    from reference_model.models import open_model  # an old commit's model, under asv, has none

    return open_model(name, dtype)


@lru_cache(maxsize=2)
def _encoded(subject: Subject) -> list[Tensor]:
    """Each text of its own, in the model's tokens."""
    return [encode(subject.tokenizer, text) for text in _texts(subject.text)]


@lru_cache(maxsize=2)
def _all_windows(subject: Subject) -> Windows:
    texts = _encoded(subject)
    if subject.text is not None:
        population = f"the text of {Path(subject.text).name}"
    else:
        population = f"the text of {len(texts)} plays"
    try:
        return windows_of(texts, subject.window, population)
    except ValueError as error:
        raise UserError(f"{subject.text or 'the plays'}: {error}; use a longer text") from None


def _texts(path: str | None) -> list[str]:
    if path is None:
        return list(play_texts("test").values())
    try:
        return [Path(path).read_text(encoding="utf-8")]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UserError(f"cannot read the text {path}: {reason}") from None


def digest_of(settings: Settings) -> str:
    """The start of the SHA-256 of the model's files, and of the text's.

    Of the checkpoint's tensors: two files of the same ones may differ in their metadata's order.
    """
    digest = _digest_of_reference() if settings.model == REFERENCE else _of_files(settings)
    if settings.text is None:
        return digest
    return f"{digest}, {sha256(Path(settings.text).read_bytes()).hexdigest()[:16]}"


def _digest_of_reference() -> str:
    from safetensors.numpy import load_file

    from reference_model.checkpoints import REFERENCE_FOLDER, WEIGHTS_FILE

    weights = REFERENCE_FOLDER / WEIGHTS_FILE
    if not weights.is_file():
        return "without weights"
    digest = sha256()
    for name, tensor in sorted(load_file(weights).items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape} ".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()[:16]


def _of_files(settings: Settings) -> str:
    """Of all that a model is read from: a file, or those of a folder by their names."""
    name, dtype = settings.model, torch_dtype(settings.dtype)
    if name.startswith(PREFIX):
        place = Path(name.removeprefix(PREFIX))
        if not place.exists():  # of the hub: the weights themselves
            return _of_tensors(open_with_transformers(name, dtype).model.state_dict())
    else:
        place = _opened(name, dtype).place
    digest = sha256()
    for file in [place] if place.is_file() else sorted(place.iterdir()):
        if file.is_file():
            digest.update(f"{file.name} ".encode())
            with file.open("rb") as read:
                while piece := read.read(1 << 24):
                    digest.update(piece)
    return digest.hexdigest()[:16]


def _of_tensors(tensors: Mapping[str, Tensor]) -> str:
    digest = sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
