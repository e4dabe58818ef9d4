"""onnxruntime, kept from reporting to its makers.

From 1.29 on it starts a thread at import that sends telemetry, unless it is told not to before. Whoever
needs onnxruntime imports it from here. Nobody's data goes anywhere unasked; and a server that forks after
it has loaded would wait for that thread, which stays behind, when it ends.

Layer L1; imports onnxruntime, so it is itself imported where that is used.

Source: https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

__all__ = ["ort"]
