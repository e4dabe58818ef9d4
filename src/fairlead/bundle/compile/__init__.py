"""Compile a model to one ONNX graph that computes what the original computes.

    model ──flatten──▶ transforms over `columns` ──▶ one predictor ──▶ graph X → label, probabilities | value

The graph takes one float64 tensor ``X``, a column a feature of the schema: numbers and bools as they
are, a string as its place in the feature's categories, null as NaN. A family of steps is one file: it
offers `TRANSFORMS` or `PREDICTORS`, dicts from ``library.ClassName`` to the function that compiles
it. A class that no file names, or a setting that its function does not cover, stops the compilation
with `NotCompilable`, which names the step.

Layer L1, build time only: nothing here is imported when a bundle is served.
"""
