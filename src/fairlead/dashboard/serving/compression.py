"""Answers made smaller for whoever takes gzip: a page's scripts are 7 MB, plotly.js alone 5, and each plot 100 KB.

Layer L3; imports Flask.
"""

from __future__ import annotations

import gzip

from flask import Response, request

_LEAST_BYTES = 1000
# A third of the time of the usual 6, and a twentieth more bytes.
_LEVEL = 4
_KINDS = ("text/", "application/json", "application/javascript", "image/svg+xml")


def compress(response: Response) -> Response:
    """Compress an answer, if that is of use; for ``after_request``.

    Not for pages that hold a secret beside what somebody else may choose: their length would tell it.
    """
    if response.status_code != 200 or not (response.mimetype or "").startswith(_KINDS):
        return response
    response.vary.add("Accept-Encoding")
    if "content-encoding" in response.headers or not request.accept_encodings.quality("gzip"):
        return response
    response.direct_passthrough = False  # of a file, which has to be read
    data = response.get_data()
    if len(data) >= _LEAST_BYTES:
        response.set_data(gzip.compress(data, _LEVEL, mtime=0))
        response.content_encoding = "gzip"
        etag, _ = response.get_etag()
        if etag is not None:
            response.set_etag(etag, weak=True)  # the same content in other bytes
    return response
