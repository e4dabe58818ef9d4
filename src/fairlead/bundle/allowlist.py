"""Which globals a pickle may use without being trusted, by name; knows nothing of how pickles are read.

Exact names where a module also holds dangerous ones. What is left out on purpose: `scipy.stats` (its
distributions run `exec` on their state), `numpy.memmap` and `load` (they open files), `operator.methodcaller`.
Layer L1; stdlib only.
"""

from __future__ import annotations

import re
from typing import Final


def _under(module: str, names: str) -> list[str]:
    return [f"{module}.{name}" for name in names.split()]


STDLIB: Final = frozenset(
    _under("builtins", "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple")
    + _under("builtins", "NotImplemented Ellipsis")
    + _under("collections", "OrderedDict defaultdict Counter deque")
    + _under("datetime", "date datetime time timedelta timezone")
    + ["decimal.Decimal", "fractions.Fraction", "uuid.UUID", "types.SimpleNamespace", "functools.partial"]
    + ["copyreg._reconstructor", "_codecs.encode", "operator.itemgetter"]
)

_NUMPY = frozenset(
    _under(
        "numpy",
        "ndarray dtype matrix bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 intc intp uintc uintp "
        "longlong ulonglong float16 float32 float64 longdouble complex64 complex128 clongdouble str_ bytes_ object_ "
        "void datetime64 timedelta64 generic number integer floating inexact character "
        # What a FunctionTransformer or a scorer holds.
        "mean median average sum prod std var ptp min max amin amax argmin argmax nanmean nanmedian nanmin nanmax "
        "nanstd nan_to_num clip round around cumsum cumprod diff ravel reshape squeeze transpose asarray array abs "
        "absolute log log1p log2 log10 exp expm1 exp2 sqrt cbrt square sin cos tan arcsin arccos arctan arcsinh sinh "
        "cosh tanh sign floor ceil trunc rint reciprocal negative isnan isfinite isinf maximum minimum add subtract "
        "multiply divide true_divide power float_power logical_not logical_and logical_or hypot deg2rad rad2deg fabs "
        "positive",
    )
)
_NUMPY_EXACT = frozenset(
    _under("numpy.core", "multiarray._reconstruct multiarray.scalar numeric._frombuffer")
    + _under("numpy._core", "multiarray._reconstruct multiarray.scalar numeric._frombuffer")
    + _under("numpy.ma", "MaskedArray core.MaskedArray core.MaskedConstant core._mareconstruct")
    + _under("numpy.random", "_mt19937.MT19937 _pcg64.PCG64 _pcg64.PCG64DXSM _philox.Philox _sfc64.SFC64")
    + _under("numpy.random._pickle", "__bit_generator_ctor __generator_ctor __randomstate_ctor")
    + _under("numpy.random.bit_generator", "SeedSequence __pyx_unpickle_SeedSequence")
)
_ARROW = frozenset(_under("pyarrow.lib", "_restore_array py_buffer type_for_alias"))

_SKLEARN_PRIVATE = frozenset({"datasets", "externals", "tests", "conftest", "utils", "experimental", "show_versions"})
_SKLEARN_UTILS = re.compile(
    r"sklearn\.utils(\._?bunch)?\.Bunch|sklearn\.utils\._metadata_requests\.(Meth\w*|Met\w*|RequestType)"
    r"|sklearn\.utils\._tags\.\w*Tags"
)
_SKLEARN_FUNCTIONS = re.compile(
    r"newObj|__pyx_unpickle_\w+|_kmeans_single_(lloyd|elkan)|f_classif|f_regression|r_regression|chi2"
    r"|mutual_info_(classif|regression)"
)
_SKLEARN_METRICS = re.compile(r"sklearn\.metrics\.(\w+\.)*\w+_(score|error|loss|kernel|distances|deviance)")
_PANDAS_MODULES = re.compile(
    r"pandas(\.arrays|\.api\.types|\.core\.(frame|series|indexes\.\w+|arrays(\.\w+)*|dtypes\.dtypes"
    r"|internals(\.(managers|blocks))?))?"
)
_PANDAS_NAMES = re.compile(
    r"DataFrame|Series|Categorical|NA|NaT|Timestamp|Timedelta|_new_\w*Index|\w*(Dtype|Index|Array|Manager|Block)"
)
_PANDAS_LIBS = re.compile(
    r"pandas\._libs\.(\w+\.)*(_unpickle_\w+|_nat_unpickle|__pyx_unpickle_\w+|_timedelta_unpickle|NAType|BlockPlacement"
    r"|BlockValuesRefs)"
)
_SCIPY = re.compile(
    r"scipy\.sparse\.(_?(csr|csc|coo|bsr|lil|dok|dia))\.\w+_(matrix|array)"
    r"|scipy\.interpolate\.(_?\w+\.)?(BSpline|PPoly|BPoly|interp1d|PchipInterpolator|CubicSpline|UnivariateSpline)"
    r"|scipy\.spatial\.(_?ckdtree|_?kdtree)\.(c?KDTree|cKDTreeNode)"
    r"|scipy\.special(\._ufuncs)?\.(expit|logit|log1p|expm1|erf|erfinv|gammaln|boxcox|boxcox1p|inv_boxcox|inv_boxcox1p)"
    r"|scipy\._lib\.array_api_compat\.numpy\._aliases\.asarray|scipy\.linalg\.\w+\.__pyx_unpickle_\w+"
)
_BOOSTERS = re.compile(
    r"xgboost\.core\.Booster|xgboost\.sklearn\.XGB\w+|xgboost\.compat\.XGBoostLabelEncoder"
    r"|lightgbm\.basic\.Booster|lightgbm\.sklearn\.(LGBM\w+|_LGBM\w+)|lightgbm\.compat\._LGBMLabelEncoder"
    r"|catboost\.core\.CatBoost\w*"
)
_CLASS = re.compile(r"_*[A-Z]\w*")


def is_allowed(module: str, name: str) -> bool:
    """Whether a pickle may use the global `name` of `module` without the user's word.

    >>> is_allowed("sklearn.linear_model._logistic", "LogisticRegression"), is_allowed("builtins", "eval")
    (True, False)
    """
    if "." in name:  # pickle would walk the attributes: `numpy` and `f2py.os.system`
        return False
    full = f"{module}.{name}"
    library = module.partition(".")[0]
    if library == "sklearn":
        return _is_allowed_sklearn(module, name, full)
    if library == "numpy":
        return full in _NUMPY_EXACT or full in _NUMPY
    if library == "pandas":
        known = _PANDAS_MODULES.fullmatch(module) and _PANDAS_NAMES.fullmatch(name)
        return bool(known or _PANDAS_LIBS.fullmatch(full))
    return full in STDLIB or full in _ARROW or bool(_SCIPY.fullmatch(full) or _BOOSTERS.fullmatch(full))


def _is_allowed_sklearn(module: str, name: str, full: str) -> bool:
    if _SKLEARN_UTILS.fullmatch(full):
        return True
    if _SKLEARN_PRIVATE.intersection(module.split(".")):
        return False
    return bool(_CLASS.fullmatch(name) or _SKLEARN_FUNCTIONS.fullmatch(name) or _SKLEARN_METRICS.fullmatch(full))
