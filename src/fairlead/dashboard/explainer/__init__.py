"""What is computed and shown of a model: SHAP values of the bundle's own features, in an explainer of the library's.

Layer L3.
"""
