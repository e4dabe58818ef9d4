"""The deployable directory that `fairlead build` makes of a trained model.

Layer L1. May import `predict`, to prove parity through the very predictor that will serve, and what
lies below; never a serving mode. `read` and `manifest` import nothing that serving does not need.
"""
