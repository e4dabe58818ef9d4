"""Modes on a cluster of machines: Ray on top of batch.

Layer L4; imports the modes and what is below them.
"""
