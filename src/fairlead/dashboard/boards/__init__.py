"""Stores loaded: a board's pages and options, a visit to all of it, its size, and itself as one file.

Layer L3.
"""
