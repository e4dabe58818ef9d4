"""From a bundle, rows and options to a store; and again whenever one of them changes.

Layer L3.
"""
