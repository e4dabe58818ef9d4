"""Who may see which dashboard: users and grants, sessions, the login page, and the gate before a hub.

Layer L3.
"""
