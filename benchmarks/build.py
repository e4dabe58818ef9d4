"""Seconds of `fairlead build`: a forest of 100, compiled and compared with the original on every row.

python benchmarks/build.py [--data telco-churn.csv] [--repeats 5]
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from results import Figure, build, median, options, train, write

import fairlead


def main() -> None:
    chosen = options(__doc__, repeats=5)
    found = []
    with tempfile.TemporaryDirectory() as directory:
        forest = train(chosen.data, Path(directory))
        bundle = Path(directory) / "telco"
        for _ in range(chosen.repeats):
            start = time.perf_counter()
            build(forest, bundle)
            found.append(time.perf_counter() - start)
        parity = fairlead.load(bundle).manifest.parity
    assert parity is not None
    told = f"{forest.told}; {parity.rows:,} rows compared, largest difference {parity.largest_difference:.1g}"
    figures = [Figure("`fairlead build`, the whole command", median(found), "s", 20)]
    write(chosen.results, "build", f"{told}; median of {chosen.repeats}", figures)


if __name__ == "__main__":
    main()
