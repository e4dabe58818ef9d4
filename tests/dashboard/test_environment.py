from __future__ import annotations

import subprocess
import sys

import pytest

LEFT_OUT = ["IPython", "matplotlib", "jupyter_dash", "dtreeviz", "numba"]
CODE = f"""
import sys
from fairlead.dashboard import environment
if {{own}}: environment.own_process()
library = environment.library()
print(sorted(set({LEFT_OUT}) & set(sys.modules)))
import numba, matplotlib
print(numba.njit(lambda: 7)(), numba.__version__ > "0", matplotlib.__version__ > "0")
import shap
print(shap.links.logit(0.5), library.ClassifierExplainer.__name__)
"""


@pytest.mark.parametrize("own", [True, False])
def test_a_process_of_ones_own_imports_no_notebooks_and_a_users_all(own: bool) -> None:
    done = subprocess.run([sys.executable, "-c", CODE.format(own=own)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    imported, real, used = done.stdout.splitlines()
    assert imported == ("[]" if own else str(sorted(LEFT_OUT)))
    # Whoever wants them later has them.
    assert real == "7 True True"
    assert used == "0.0 ClassifierExplainer"
