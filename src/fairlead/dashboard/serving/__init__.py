"""Boards under one hub, brought up to date while they are shown: with gunicorn, waitress or in an app of the user's.

Layer L3.
"""
