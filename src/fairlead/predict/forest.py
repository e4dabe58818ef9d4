"""`trees.bin`: a tree ensemble over the encoded matrix, preprocessing folded into its splits.

A feature's axis is cut into intervals; in an interval every split of the ensemble answers the same. What
a split compares is a *bin* in a *slot* of the row: a small whole number that only the interval decides. A
slot holds how many thresholds of one column lie below a value, so ``column <= threshold`` is ``bin <=
place of the threshold``. A one-hot column is a slot of 0 where the category is, 1 elsewhere.

The file is a magic, the header as JSON with its length before it, and the arrays one after the other,
little-endian, in the order of `ARRAYS`. Nothing in it is executed, and `_trees.c` checks every number of
it before it is used.

Layer L1; imports numpy and msgspec only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from fairlead.errors import BundleError

TREES = "trees.bin"
_MAGIC = b"fairlead trees 1\n"
_ALIGN = 8

Link = Literal["identity", "sigmoid", "softmax", "exp", "signed_square"]
Answer = Literal["number", "positive", "above_zero", "at_least_zero", "largest"]

NODE = np.dtype([("bin", "<u2"), ("slot", "<u2"), ("child", "<u4")])
ENTRY = np.dtype([("slot", "<u2"), ("bin", "<u2")])
LEAF = 0x8000
MOST_SLOTS = LEAF - 1
ARRAYS: dict[str, np.dtype[Any]] = {
    "sizes": np.dtype("<i4"),
    "cuts": np.dtype("<f8"),
    "entry_starts": np.dtype("<u4"),
    "entries": ENTRY,
    "usual": np.dtype("<u2"),
    "nodes": NODE,
    "roots": np.dtype("<u4"),
    "targets": np.dtype("<u2"),
    "leaves": np.dtype("<f8"),
    "base": np.dtype("<f8"),
}


class Finish(msgspec.Struct, frozen=True, kw_only=True):
    """How sums of trees become answers: ``link(sum / divisor * scale)``.

    Parameters
    ----------
    divisor : the number of trees of a forest that averages.
    scale : a factor of the loss.
    link : the function; `softmax` is over the classes, the others are of each number.
    answer : what comes of it: a regressor's ``number``; of two classes the second where its probability
        is over a half (``positive``), where the sum is ``above_zero`` or ``at_least_zero``; of several
        classes the ``largest``, the first of equals.
    single : everything in float32, as in xgboost.
    """

    divisor: float = 1.0
    scale: float = 1.0
    link: Link = "identity"
    answer: Answer = "number"
    single: bool = False


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    finish: Finish
    n_values: int
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class Forest:
    """Trees over bins, and how bins are made of a row.

    Parameters
    ----------
    sizes : by feature, the number of its cuts; of a feature of codes ``~n``, n the number of codes.
    cuts : the cuts of all features in rising order. A feature's intervals are: not above the first cut, not
        above the second, … above the last, NaN; of a feature of codes: no known code, the codes, NaN.
    entry_starts : by interval, over all features, where its entries begin; one more for their end.
    entries : the slots that have another than their usual bin there.
    usual : by slot, the bin that it has unless an entry says otherwise.
    nodes : a node's children stand side by side, after it. A `bin` of the row's slot above the node's goes
        right. The slot of a leaf is `LEAF`, its child the place of its values.
    roots : by tree, in the order in which they are added.
    targets : by tree, the output that it adds to; 0 where leaves hold all outputs.
    leaves : float64, shape (n_leaves, n_values).
    base : float64, shape (n_targets,): where the sums start.
    """

    sizes: npt.NDArray[np.int32]
    cuts: npt.NDArray[np.float64]
    entry_starts: npt.NDArray[np.uint32]
    entries: npt.NDArray[np.void]
    usual: npt.NDArray[np.uint16]
    nodes: npt.NDArray[np.void]
    roots: npt.NDArray[np.uint32]
    targets: npt.NDArray[np.uint16]
    leaves: npt.NDArray[np.float64]
    base: npt.NDArray[np.float64]
    finish: Finish

    def arrays(self) -> tuple[bytes, ...]:
        """Give the arrays as bytes, in the order of `ARRAYS`."""
        return tuple(np.ascontiguousarray(getattr(self, name), dtype=dtype).tobytes() for name, dtype in ARRAYS.items())


def encode_forest(forest: Forest) -> bytes:
    """Write a forest as the bytes of `trees.bin`."""
    arrays = forest.arrays()
    lengths = tuple(map(len, arrays))
    header = msgspec.json.encode(_Header(finish=forest.finish, n_values=forest.leaves.shape[1], lengths=lengths))
    head = _MAGIC + len(header).to_bytes(4, "little") + header
    return b"".join(map(_padded, (head, *arrays)))


def decode_forest(data: bytes, where: str) -> Forest | None:
    """Read a forest; None when another fairlead wrote it in another form.

    Parameters
    ----------
    where : what to call the file in an error.

    Raises
    ------
    BundleError
        When the parts do not fill the file exactly.
    """
    if not data.startswith(_MAGIC):
        return None
    start = len(_MAGIC) + 4
    end = start + int.from_bytes(data[len(_MAGIC) : start], "little")
    try:
        header = msgspec.json.decode(data[start:end], type=_Header)
        found: dict[str, Any] = {}
        for (name, dtype), length in zip(ARRAYS.items(), header.lengths, strict=True):
            begin = end + -end % _ALIGN
            end = begin + length
            found[name] = np.frombuffer(data[begin:end], dtype)
            if length < 0 or found[name].nbytes != length:
                raise ValueError(f"{found[name].nbytes} bytes of {length} of {name}")
        if end + -end % _ALIGN != len(data) or header.n_values < 1:
            raise ValueError(f"{len(data)} bytes, told {end}")
        found["leaves"] = found["leaves"].reshape(-1, header.n_values)
    except (msgspec.MsgspecError, ValueError) as error:
        raise BundleError(f"{where}: expected the trees of a bundle, got {error}: build it again") from error
    return Forest(**found, finish=header.finish)


def _padded(part: bytes) -> bytes:
    return part + bytes(-len(part) % _ALIGN)
