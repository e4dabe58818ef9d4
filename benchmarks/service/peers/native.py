"""fairlead with the scikit-learn object itself, as for a model that cannot be compiled."""

from own import fairlead

PEER = fairlead("native", "**fairlead, native**", "native", "scikit-learn itself predicts", in_turns=False)
