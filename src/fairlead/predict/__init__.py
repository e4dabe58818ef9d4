"""The one way to a prediction: validate → encode → run → outputs. Every serving mode calls only this.

Layer L1. Imports numpy and msgspec; onnxruntime only for a compiled bundle that is no tree ensemble,
pandas, pyarrow and scikit-learn only for a native bundle or a table, and then at the place of use.
"""
