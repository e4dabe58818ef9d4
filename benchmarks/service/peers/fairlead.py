"""fairlead with the forest compiled."""

from own import fairlead

PEER = fairlead("fairlead", "**fairlead**", "onnx", "the forest compiled", in_turns=True)
