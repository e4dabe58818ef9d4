"""Model formats: one file for each, found by its name here or by the entry point `fairlead.formats`.

A format module defines `accepts(path) -> bool`, cheap and without loading, and
`load(request) -> LoadedModel`. Formats whose source is no path (``module:Class``) tell by its text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class LoadRequest:
    """What `build` was asked to load.

    Parameters
    ----------
    source : as the user wrote it: a path or ``module:Class``.
    vectorizer : a second file that holds the DictVectorizer, when it is not in the first.
    trust : globals that a pickle may use beyond the allow-list, as ``module.name``.
    code : the user's module that the model's classes may live in.
    """

    source: str
    vectorizer: Path | None = None
    trust: frozenset[str] = frozenset()
    code: Path | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A model as it came, ready to be looked at.

    Parameters
    ----------
    model : an estimator, a Pipeline, a booster, an ONNX graph's bytes, or an instance of the user's class.
    format : the name of the format module.
    files : what is copied to ``original/``: bytes by file name; enough to load the model again.
    versions : library versions it was made with, as far as it tells.
    vectorizer : the DictVectorizer of a ``(vectorizer, estimator)`` pair.
    signature : MLflow's signature inputs: ``[{"name": …, "type": "double", "required": …}, …]``.
    input_example : records that came with the model.
    warnings : what the user should know, such as an older scikit-learn.
    """

    model: Any
    format: str
    files: dict[str, bytes]
    versions: dict[str, str] = field(default_factory=dict)
    vectorizer: Any = None
    signature: list[dict[str, Any]] | None = None
    input_example: list[dict[str, Any]] | None = None
    warnings: tuple[str, ...] = ()


class Format(Protocol):
    """What a module in this folder, or one behind the entry point, provides."""

    def accepts(self, source: str) -> bool:
        """Whether `source` looks like this format; reads a few bytes at most."""
        ...

    def load(self, request: LoadRequest) -> LoadedModel:
        """Check, then load.

        Raises
        ------
        SourceError
            And its kinds: broken, unsafe, skewed.
        """
        ...
