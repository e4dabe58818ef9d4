"""Which version of a model answers: what is served, new versions tried, traffic parted between two.

Layer L2: a mode asks here which bundle a request is for and says how it went; nothing here knows HTTP
servers. Nothing third-party but msgspec is imported until a bundle is tried or fetched.
"""
