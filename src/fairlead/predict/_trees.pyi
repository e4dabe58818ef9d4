from typing import Any

import numpy as np
import numpy.typing as npt

class Forest:
    def __new__(
        cls,
        arrays: tuple[bytes, ...],
        n_values: int,
        divisor: float,
        scale: float,
        link: int,
        answer: int,
        single: bool,
        classes: tuple[Any, ...] | None,
    ) -> Forest: ...
    def run(
        self, X: npt.NDArray[np.float64], out: npt.NDArray[np.float64], codes: npt.NDArray[np.uint32] = ...
    ) -> list[Any] | None: ...
