"""The C extension against a plain walk in Python, and against files that lie."""

from __future__ import annotations

import gc
import math
import sys
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.errors import BundleError
from fairlead.predict.forest import ENTRY, LEAF, NODE, Finish, Forest, decode_forest, encode_forest
from fairlead.predict.trees import TreesEngine, kernel
from fairlead.schema import Feature, Schema

Array = npt.NDArray[Any]
EDGES = [-math.inf, -1e308, -1.0, -0.0, 0.0, 5e-324, 1.0, 2.0, 1e308, math.inf, math.nan]


def random_forest(
    rng: np.random.Generator, *, n_features: int = 3, n_trees: int = 5, depth: int = 6, n_targets: int = 1,
    n_values: int = 1, codes: bool = True, finish: Finish | None = None,
) -> Forest:  # fmt: skip
    """Make a forest of random trees over random axes; every third feature has codes, the last one no split."""
    sizes, cuts, starts, entries, usual = [], [], [0], [], []
    for place in range(n_features):
        is_code = codes and place % 3 == 2
        n = int(rng.integers(0, 6))
        sizes.append(~n if is_code else n)
        if not is_code:
            cuts += sorted(rng.choice(np.arange(-8, 8) / 2, n, replace=False).tolist())
        mine = range(len(usual), len(usual) + int(rng.integers(1, 3)))
        usual += [int(rng.integers(0, 4)) for _ in mine]
        for _ in range(n + 2):
            entries += [(slot, int(rng.integers(0, 4))) for slot in mine if rng.random() < 0.7]
            starts.append(len(entries))
    nodes: list[tuple[int, int, int]] = []
    roots, n_leaves = [], 0
    for _ in range(n_trees):
        roots.append(len(nodes))
        nodes.append((0, 0, 0))
        front = [(len(nodes) - 1, 0)]
        while front:
            place, level = front.pop(0)
            if level >= depth or rng.random() < 0.2:
                nodes[place] = (0, LEAF, n_leaves)
                n_leaves += 1
                continue
            nodes[place] = (int(rng.integers(0, 4)), int(rng.integers(len(usual))), len(nodes))
            front += [(len(nodes), level + 1), (len(nodes) + 1, level + 1)]
            nodes += [(0, 0, 0), (0, 0, 0)]
    return Forest(
        sizes=np.array(sizes, np.int32),
        cuts=np.array(cuts, np.float64),
        entry_starts=np.array(starts, np.uint32),
        entries=np.array(entries, ENTRY),
        usual=np.array(usual, np.uint16),
        nodes=np.array(nodes, NODE),
        roots=np.array(roots, np.uint32),
        targets=rng.integers(0, 1 if n_values > 1 else n_targets, n_trees).astype(np.uint16),
        leaves=rng.normal(size=(n_leaves, n_values)).astype(np.float32).astype(np.float64),
        base=rng.normal(size=n_targets).astype(np.float32).astype(np.float64),
        finish=finish or Finish(),
    )


def interval_of(size: int, cuts: Array, x: float) -> int:
    if math.isnan(x):
        return (~size if size < 0 else size) + 1
    if size < 0:
        return int(x) + 1 if 0 <= x < ~size else 0
    return int((cuts < x).sum())


def sums_of(forest: Forest, X: Array) -> Array:
    """Walk as it is defined, one node at a time."""
    first_cut = np.cumsum([0, *(max(int(size), 0) for size in forest.sizes)])
    n_intervals = [(~int(size) if size < 0 else int(size)) + 2 for size in forest.sizes]
    first = np.cumsum([0, *n_intervals])
    sums = []
    for row in X:
        bins = forest.usual.astype(int)
        for place, x in enumerate(row):
            size = int(forest.sizes[place])
            at = first[place] + interval_of(size, forest.cuts[first_cut[place] : first_cut[place + 1]], x)
            for slot, value in forest.entries[forest.entry_starts[at] : forest.entry_starts[at + 1]].tolist():
                bins[slot] = value
        total = forest.base.copy()
        for root, target in zip(forest.roots.tolist(), forest.targets.tolist(), strict=True):
            threshold, slot, child = forest.nodes[root].tolist()
            while slot != LEAF:
                threshold, slot, child = forest.nodes[child + (bins[slot] > threshold)].tolist()
            values = forest.leaves[child]
            if forest.finish.single:
                total[target] = np.float32(np.float32(total[target]) + np.float32(values[0]))
            else:
                total[target : target + len(values)] += values
        sums.append(total)
    return np.array(sums).reshape(len(X), len(forest.base))


def schema_of(forest: Forest) -> Schema:
    return Schema(features=tuple(Feature(name=f"x{i}", type="float") for i in range(len(forest.sizes))))


def engine_of(forest: Forest, classes: tuple[Any, ...] | None = None) -> TreesEngine:
    return TreesEngine(forest, schema_of(forest), classes)


def rows_for(forest: Forest, rng: np.random.Generator, n: int) -> Array:
    """Draw rows on the cuts, beside them, between codes, and far out."""
    points = np.concatenate([forest.cuts, np.nextafter(forest.cuts, np.inf), EDGES, np.arange(-2, 9)])
    return rng.choice(points, (n, len(forest.sizes)))


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), n_rows=st.integers(0, 300), n_trees=st.integers(0, 12), depth=st.integers(0, 9))
def test_walks_as_defined(seed: int, n_rows: int, n_trees: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    forest = random_forest(rng, n_features=int(rng.integers(1, 9)), n_trees=n_trees, depth=depth)
    X = rows_for(forest, rng, n_rows)

    found = engine_of(forest).predict_matrix(X)

    assert found.probabilities is None
    assert np.array_equal(found.values, sums_of(forest, X)[:, 0])


@pytest.mark.parametrize(
    ("n_features", "n_trees", "depth", "n_rows"),
    [(300, 3, 8, 70), (9_000, 2, 5, 20), (2, 700, 3, 5), (2, 1, 0, 3), (3, 40, 14, 257), (1, 256, 1, 1)],
)
def test_wide_deep_and_many(n_features: int, n_trees: int, depth: int, n_rows: int) -> None:
    rng = np.random.default_rng(0)
    forest = random_forest(rng, n_features=n_features, n_trees=n_trees, depth=depth)
    X = rows_for(forest, rng, n_rows)

    assert np.array_equal(engine_of(forest).predict_matrix(X).values, sums_of(forest, X)[:, 0])


def test_a_chain_of_10_000_nodes() -> None:
    n = 10_000
    nodes = np.zeros(2 * n + 1, NODE)
    nodes["child"][0:-1:2], nodes["bin"][0:-1:2] = np.arange(1, 2 * n, 2), 0
    nodes["slot"][1::2] = nodes["slot"][-1] = LEAF
    nodes["child"][1::2], nodes["child"][-1] = np.arange(n), n
    simple = random_forest(np.random.default_rng(0), n_features=1, n_trees=1, depth=0)
    forest = replace(
        simple,
        sizes=np.array([0], np.int32),
        cuts=np.zeros(0),
        entry_starts=np.array([0, 0, 0], np.uint32),
        entries=np.zeros(0, ENTRY),
        usual=np.array([1], np.uint16),
        nodes=nodes,
        leaves=np.arange(n + 1.0)[:, np.newaxis],
        base=np.zeros(1),
    )

    assert engine_of(forest).predict_matrix(np.zeros((2, 1))).values == pytest.approx([n, n])


def softmax(x: Array) -> Array:
    exp = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize(
    ("link", "function"),
    [
        ("identity", lambda x: x),
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x))),
        ("exp", np.exp),
        ("signed_square", lambda x: np.sign(x) * x * x),
    ],
)
def test_links(link: Any, function: Any, single: bool) -> None:
    rng = np.random.default_rng(1)
    forest = random_forest(rng, finish=Finish(link=link, single=single))
    X = rows_for(forest, rng, 100)

    found = np.asarray(engine_of(forest).predict_matrix(X).values)

    sums = sums_of(forest, X)[:, 0]
    assert found == pytest.approx(function(sums), rel=1e-6 if single else 1e-15)
    if single and link != "signed_square":
        assert np.array_equal(found, found.astype(np.float32))


def test_mean_and_scale() -> None:
    rng = np.random.default_rng(2)
    forest = random_forest(rng, finish=Finish(divisor=7.0, scale=3.0))
    X = rows_for(forest, rng, 50)

    assert np.array_equal(engine_of(forest).predict_matrix(X).values, sums_of(forest, X)[:, 0] / 7.0 * 3.0)


@pytest.mark.parametrize("n_rows", [1, 64, 65, 1000])
@pytest.mark.parametrize("answer", ["positive", "above_zero", "at_least_zero"])
def test_two_classes(answer: Any, n_rows: int) -> None:
    rng = np.random.default_rng(3)
    link: Any = "identity" if answer == "positive" else "sigmoid"
    forest = random_forest(rng, finish=Finish(link=link, answer=answer))
    forest = replace(forest, leaves=np.round(forest.leaves), base=np.zeros(1))  # sums of exactly zero are among them
    X = rows_for(forest, rng, n_rows)

    found = engine_of(forest, ("no", "yes")).predict_matrix(X)

    raw = sums_of(forest, X)[:, 0]
    is_second = {"positive": raw > 0.5, "above_zero": raw > 0, "at_least_zero": raw >= 0}[answer]
    assert found.values == np.where(is_second, "yes", "no").tolist()
    positive = raw if answer == "positive" else 1 / (1 + np.exp(-raw))
    assert found.probabilities == pytest.approx(np.column_stack([1 - positive, positive]), rel=1e-15)


@pytest.mark.parametrize("n_rows", [1, 3, 300])
@pytest.mark.parametrize(("n_values", "link"), [(4, "identity"), (1, "softmax"), (1, "sigmoid")])
def test_several_classes(n_values: int, link: Any, n_rows: int) -> None:
    rng = np.random.default_rng(4)
    finish = Finish(link=link, answer="largest")
    forest = random_forest(rng, n_targets=4, n_values=n_values, n_trees=9, finish=finish)
    X = rows_for(forest, rng, n_rows)

    found = engine_of(forest, ("a", "b", "c", "d")).predict_matrix(X)

    raw = sums_of(forest, X)
    wanted = {"identity": raw, "softmax": softmax(raw), "sigmoid": 1 / (1 + np.exp(-raw))}[link]
    assert found.probabilities == pytest.approx(wanted, rel=1e-14)
    assert found.values == ["abcd"[place] for place in raw.argmax(axis=1)]


def test_the_first_of_equals() -> None:
    forest = random_forest(np.random.default_rng(0), n_targets=3, n_trees=0, finish=Finish(answer="largest"))
    forest = replace(forest, base=np.array([1.0, 2.0, 2.0]))

    assert engine_of(forest, (1, 2, 3)).predict_matrix(np.zeros((1, 3))).values == [2]


def test_more_classes_than_a_block_holds() -> None:
    rng = np.random.default_rng(5)
    forest = random_forest(rng, n_targets=20_000, n_trees=30, finish=Finish(answer="largest"))
    X = rows_for(forest, rng, 3)

    assert np.array_equal(engine_of(forest, tuple(range(20_000))).predict_matrix(X).probabilities, sums_of(forest, X))


def test_threads_share_it() -> None:
    rng = np.random.default_rng(6)
    forest = random_forest(rng, n_trees=50, depth=9)
    engine, X = engine_of(forest), rows_for(forest, rng, 500)
    wanted = sums_of(forest, X)[:, 0]
    right: list[bool] = []

    def ask() -> None:
        right.extend(np.array_equal(engine.predict_matrix(X).values, wanted) for _ in range(20))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 80


def test_nothing_is_leaked() -> None:
    labels = ("a label of its own", "another")
    forest = random_forest(np.random.default_rng(0), finish=Finish(answer="positive"))
    X = np.zeros((200, 3))
    engine_of(forest, labels).predict_matrix(X)
    gc.collect()
    before = sys.getrefcount(labels[0])
    for _ in range(50):
        engine_of(forest, labels).predict_matrix(X)
        with pytest.raises(BundleError):
            engine_of(replace(forest, roots=forest.roots + 10_000), labels)
    gc.collect()
    assert sys.getrefcount(labels[0]) - before < 5


@pytest.mark.parametrize(
    "X",
    [
        np.zeros((2, 4)),
        np.zeros(3),
        np.zeros((2, 3), np.float32),
        np.zeros((2, 3), ">f8"),
        np.zeros((3, 2)).T,
        np.zeros((2, 3), np.int64),
        b"0" * 48,
    ],
)
def test_other_matrices_are_refused(X: Any) -> None:
    engine = engine_of(random_forest(np.random.default_rng(0)))
    with pytest.raises((ValueError, BufferError)):
        engine._run(X, np.empty(2))


@pytest.mark.parametrize("out", [np.empty(1), np.empty(3), np.empty(2, np.float32), np.zeros(2).tobytes()])
def test_other_outputs_are_refused(out: Any) -> None:
    engine = engine_of(random_forest(np.random.default_rng(0)))
    with pytest.raises((ValueError, BufferError)):
        engine._run(np.zeros((2, 3)), out)


def test_run_takes_two() -> None:
    engine: Any = engine_of(random_forest(np.random.default_rng(0)))
    with pytest.raises(TypeError, match="X, out and maybe codes"):
        engine._run(np.zeros((2, 3)))


def test_codes_have_room_for_every_row() -> None:
    engine: Any = engine_of(random_forest(np.random.default_rng(0)))
    X = np.zeros((2, engine.encoder._width))
    for codes in (np.zeros(1, np.uint32), np.zeros(2, np.uint64), np.zeros(2, np.uint8)):
        with pytest.raises(ValueError, match="codes: expected uint32 with room for 2 rows"):
            engine._run(X, np.zeros((2, max(engine._width, 1))), codes)


def changed(forest: Forest, name: str, place: int, value: Any, part: str | None = None) -> Forest:
    array = getattr(forest, name).copy()
    (array if part is None else array[part])[place] = value
    return replace(forest, **{name: array})


SOUND = random_forest(np.random.default_rng(7), n_trees=4)
INNER = int(np.flatnonzero(SOUND.nodes["slot"] != LEAF)[-1])
A_LEAF = int(np.flatnonzero(SOUND.nodes["slot"] == LEAF)[0])
NUMERIC = int(np.flatnonzero(SOUND.sizes > 1)[0])
LIES = {
    "child before": changed(SOUND, "nodes", INNER, 0, "child"),
    "child itself": changed(SOUND, "nodes", INNER, INNER, "child"),
    "child last": changed(SOUND, "nodes", INNER, len(SOUND.nodes) - 1, "child"),
    "child outside": changed(SOUND, "nodes", INNER, 2**32 - 1, "child"),
    "slot outside": changed(SOUND, "nodes", INNER, len(SOUND.usual), "slot"),
    "slot of a leaf": changed(SOUND, "nodes", A_LEAF, LEAF + 1, "slot"),
    "leaf outside": changed(SOUND, "nodes", A_LEAF, len(SOUND.leaves), "child"),
    "root outside": changed(SOUND, "roots", 0, len(SOUND.nodes)),
    "target outside": changed(SOUND, "targets", 0, 1),
    "targets too few": replace(SOUND, targets=SOUND.targets[1:]),
    "entry outside": changed(SOUND, "entries", 0, len(SOUND.usual), "slot"),
    "entries from one": changed(SOUND, "entry_starts", 0, 1),
    "entries backwards": changed(SOUND, "entry_starts", 1, 2**31),
    "entries too many": changed(SOUND, "entry_starts", -1, len(SOUND.entries) + 1),
    "no intervals": replace(SOUND, entry_starts=SOUND.entry_starts[:0]),
    "an interval more": replace(SOUND, entry_starts=np.append(SOUND.entry_starts, SOUND.entry_starts[-1])),
    "cuts too few": replace(SOUND, cuts=SOUND.cuts[1:]),
    "cuts too many": replace(SOUND, cuts=np.append(SOUND.cuts, 9.0)),
    "cuts falling": changed(SOUND, "cuts", 0, math.inf),
    "cut of NaN": changed(SOUND, "cuts", 0, math.nan),
    "size huge": changed(SOUND, "sizes", NUMERIC, 2**31 - 1),
    "codes huge": changed(SOUND, "sizes", NUMERIC, -(2**31)),
    "no slots": replace(SOUND, usual=SOUND.usual[:0]),
    "too many slots": replace(SOUND, usual=np.zeros(LEAF, np.uint16)),
    "no targets": replace(SOUND, base=SOUND.base[:0]),
    "two targets": replace(SOUND, base=np.zeros(2)),
    "classes of a regressor": replace(SOUND, finish=Finish(answer="largest")),
    "a feature more": replace(SOUND, sizes=np.append(SOUND.sizes, np.int32(0))),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused(lie: str) -> None:
    with pytest.raises(BundleError, match=r"trees\.bin: expected .*: build the bundle again"):
        TreesEngine(LIES[lie], schema_of(SOUND), None)


def test_classes_have_to_fit() -> None:
    for forest, classes in ((SOUND, (1, 2)), (replace(SOUND, finish=Finish(answer="positive")), (1, 2, 3))):
        with pytest.raises(BundleError, match="classes"):
            engine_of(forest, classes)


def test_the_schema_has_to_fit() -> None:
    with pytest.raises(BundleError, match="3 features, the schema has 1"):
        TreesEngine(SOUND, Schema(features=(Feature(name="x", type="float"),)), None)


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_noise_is_refused_or_harmless(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(encode_forest(SOUND))
    for place in rng.integers(0, len(data), 3):
        data[place] = rng.integers(256)
    try:
        forest = decode_forest(bytes(data), "trees.bin")
        engine = None if forest is None else TreesEngine(forest, schema_of(SOUND), None)
    except BundleError:
        return
    if engine is not None:
        with np.errstate(all="ignore"):
            engine.predict_matrix(rows_for(SOUND, rng, 70))


def test_arrays_of_half_items_are_refused() -> None:
    made = kernel()
    assert made is not None
    arrays = SOUND.arrays()
    for place in range(len(arrays)):
        broken = (*arrays[:place], arrays[place] + b"0", *arrays[place + 1 :])
        with pytest.raises(ValueError, match="expected"):
            made(broken, 1, 1.0, 1.0, 0, 0, False, None)
    for link, answer in ((-1, 0), (99, 0), (0, -1), (0, 99)):
        with pytest.raises(ValueError, match="known"):
            made(arrays, 1, 1.0, 1.0, link, answer, False, None)
    for n_values in (0, -1, 2**62, 3):
        with pytest.raises(ValueError, match="expected"):
            made(arrays, n_values, 1.0, 1.0, 0, 0, False, None)


def test_without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fairlead.predict._trees", None)
    assert kernel() is None
    with pytest.raises(BundleError, match="without its C extension"):
        engine_of(SOUND)
