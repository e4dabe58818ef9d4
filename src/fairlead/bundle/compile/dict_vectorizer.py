"""DictVectorizer: ``name=value`` is an indicator of the string feature `name`, a bare name a number."""

from __future__ import annotations

from typing import Any

from fairlead.bundle.compile.columns import Column, Columns, Compilation, Indicator, Value
from fairlead.bundle.compile.steps import label_of
from fairlead.errors import NotCompilable


def _dict_vectorizer(vectorizer: Any, columns: Columns, compilation: Compilation) -> Columns:
    if columns is not compilation.inputs:
        raise NotCompilable(label_of(vectorizer), "is not the first step")
    by_name = {name: value for name, value in zip(compilation.names, columns, strict=True) if isinstance(value, Value)}
    codes = {
        name: {category: float(code) for code, category in enumerate(value.categories)}
        for name, value in by_name.items()
        if value.categories is not None
    }
    made: list[Column] = []
    for feature in vectorizer.feature_names_:
        name, mark, category = feature.partition(vectorizer.separator)
        if mark and category in codes.get(name, {}):
            made.append(Indicator(by_name[name], codes[name][category]))
        elif feature in by_name and feature not in codes:
            made.append(by_name[feature])
        else:
            raise NotCompilable(label_of(vectorizer), f"knows {feature!r}, which the schema does not")
    compilation.sparse, compilation.explicit_zeros = bool(vectorizer.sparse), True
    return tuple(made)


TRANSFORMS = {"sklearn.DictVectorizer": _dict_vectorizer}
