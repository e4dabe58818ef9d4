"""A new version is tried in a process of its own before any process that answers has anything to do with it.

The process (`main`) verifies the bundle, loads it, predicts its own example and that of the version whose place it
is to take, and tells each step before it goes there. What becomes of it, be it a crash, a hang or an exit, is told
of the version, and nothing else comes to harm.

Layer L2; here imports msgspec only, in the process what predicts.
"""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from fairlead.bundle.processes import end_with, yield_to_all
from fairlead.bundle.read import Bundle, open_bundle
from fairlead.errors import FairleadError, TrialFailed, VersionRefused
from fairlead.schema import Problem

if TYPE_CHECKING:
    from fairlead.predict.predictor import Answer, Predictor

# How long a process that has said its last may take to end by itself.
_END_S = 1.0
# Enough rows that a library takes its way for many.
_BATCH_ROWS = 64
_KEPT_BYTES = 16 * 1024
_SHOWN_CHARACTERS = 2000
_SHOWN_PROBLEMS = 10


class Comparison(Struct, frozen=True):
    """How a version did.

    Parameters
    ----------
    examples : records that it answered.
    largest_difference : of its answers from the current version's, as `answer_difference`; None where there was
        nothing to compare with.
    """

    examples: int
    largest_difference: float | None

    def __str__(self) -> str:
        answered = f"answers {self.examples} example{'s' if self.examples > 1 else ''}"
        if self.largest_difference is None:
            return answered
        if math.isinf(self.largest_difference):
            return f"{answered}, with another label than the current version"
        return f"{answered}, within {self.largest_difference:.3g} of the current version"


class _Step(Struct, frozen=True, tag="step"):
    """What the process does from now on, and whether the version has to answer for it."""

    doing: str
    is_of_version: bool = True


class _Failed(Struct, frozen=True, tag="failed"):
    """The last step failed; `explains_itself` says whether the reason can be understood without the step."""

    reason: str
    explains_itself: bool


class _Passed(Struct, frozen=True, tag="passed"):
    """All went well; `difference` is as text, since JSON has no infinity."""

    examples: int
    difference: str | None


_Message = _Step | _Failed | _Passed
_Tell = Callable[[_Message], None]
_read = msgspec.json.Decoder(_Message).decode


async def try_bundle(new: Path | str, current: Path | str | None, timeout_s: float) -> Comparison:
    """Find out whether a bundle can be served in the place of another, in a process of low priority.

    Parameters
    ----------
    new : the bundle.
    current : the bundle that is served now; None when there is none.
    timeout_s : how long it may take in all.

    Raises
    ------
    VersionRefused
        When it does not verify, load or predict, crashes, exits or hangs, does not take the records of the current
        version, or does not answer in its form.
    TrialFailed
        When there is no process to be had, or the current version fails in it.
    """
    arguments = [os.fspath(new), *([] if current is None else [os.fspath(current)])]
    told, written = os.memfd_create("trial"), _Written()
    try:
        # Whoever is killed leaves temporary files behind.
        folder = tempfile.mkdtemp(prefix="fairlead-trial-")
        try:
            status = await _run(arguments, told, written, folder, timeout_s)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        return _verdict(str(new), _messages(told), written.text, status, timeout_s)
    except OSError as error:
        raise TrialFailed(f"{new}: cannot be tried: {error.strerror}") from error
    finally:
        os.close(told)


async def _run(arguments: Sequence[str], told: int, written: _Written, folder: str, timeout_s: float) -> int | None:
    """Run the process to its end; give its status, None for one that had to be ended."""
    # A pipe of our own: that of asyncio would have its `wait` wait for whatever process still holds it open.
    here, there = os.pipe()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: written, os.fdopen(here, "rb", 0))
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "fairlead.repository.trial", str(os.getpid()), *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=told,
                stderr=there,
                env=os.environ | {"TMPDIR": folder},
            )
        finally:
            os.close(there)
        try:
            return await asyncio.wait_for(process.wait(), timeout_s)
        except TimeoutError:
            return None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with all that it has started
            with suppress(ProcessLookupError):
                process.kill()  # if it did not get as far as to be a group
            for over in (process.wait(), written.is_over.wait()):
                with suppress(TimeoutError):
                    await asyncio.wait_for(over, _END_S)
    finally:
        transport.close()


class _Written(asyncio.Protocol):
    """Keeps the end of what the process writes.

    Attributes
    ----------
    is_over : set when nobody can write any more.
    """

    def __init__(self) -> None:
        self.is_over = asyncio.Event()
        self._kept = b""

    @property
    def text(self) -> str:
        return self._kept.decode(errors="replace").strip()

    def data_received(self, data: bytes) -> None:
        self._kept = (self._kept + data)[-_KEPT_BYTES:]

    def connection_lost(self, error: Exception | None) -> None:
        self.is_over.set()


def _messages(told: int) -> list[_Message]:
    # The last line may have been cut off with its process.
    *lines, _ = os.pread(told, os.fstat(told).st_size, 0).split(b"\n")
    return list(map(_read, lines))


def _verdict(new: str, messages: Sequence[_Message], written: str, status: int | None, timeout_s: float) -> Comparison:
    step = _Step("the trial began", False)
    reason = None
    for message in messages:
        if isinstance(message, _Passed):
            return Comparison(message.examples, None if message.difference is None else float(message.difference))
        if isinstance(message, _Step):
            step = message
        else:
            reason = message.reason + ("" if message.explains_itself else f" while {step.doing}")
    if reason is None:
        reason = f"{_ending(status, timeout_s)} while {step.doing}"
        reason += f": {written.splitlines()[-1][:_SHOWN_CHARACTERS]}" if written else ""
    if not step.is_of_version:
        raise TrialFailed(f"{new}: cannot be tried: {reason}")
    raise VersionRefused(reason if reason.startswith(new) else f"{new}: {reason}", written)


def _ending(status: int | None, timeout_s: float) -> str:
    if status is None:
        return f"did not come to an end in {timeout_s:g} s"
    if status >= 0:
        return f"ended the process with status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    return f"crashed with {name}" + (", maybe for want of memory," if -status == signal.SIGKILL else "")


def main(parent: int, new: Path, current: Path | None) -> None:
    """Be the process."""
    out = os.dup(1)
    # What the model prints is not what is told.
    os.dup2(2, 1)

    def tell(message: _Message) -> None:
        os.write(out, msgspec.json.encode(message) + b"\n")

    os.setpgid(0, 0)  # a group to be killed as one, but no session: Linux weighs niceness only within a session
    yield_to_all()
    end_with(parent)
    try:
        tell(_try(new, current, tell))
    except FairleadError as error:
        tell(_Failed(_cut(str(error)), True))
    except BaseException as error:  # the user's own code, which may even try to exit
        traceback.print_exc()
        tell(_Failed(_cut(f"{type(error).__name__}: {error}"), False))
    # A model may leave threads behind, or have ends of its own to wait for: the kernel ends it.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, _END_S)


def _try(new_path: Path, current_path: Path | None, tell: _Tell) -> _Passed:
    from fairlead.predict.predictor import predictor_of

    current = None
    if current_path is not None:
        tell(_Step("the current version was verified", False))
        current = open_bundle(current_path)
    tell(_Step("it was verified"))
    new = open_bundle(new_path)
    if current is not None:
        _check_place(current, new)
    tell(_Step("it was loaded"))
    predictor = predictor_of(new)
    examples = [new.example()]
    tell(_Step("it predicted its own example"))
    answers = [_answer(predictor, examples[0], "its own example")]
    tell(_Step(f"it predicted {_BATCH_ROWS} records at once"))
    predictor.run(examples * _BATCH_ROWS)
    if current is None:
        return _Passed(1, None)
    examples.append(current.example())
    tell(_Step("it predicted the current version's example"))
    answers.append(_answer(predictor, examples[1], "the current version's example"))
    del predictor  # two models at once may be more than there is memory for
    tell(_Step("the current version predicted the examples", False))
    before = predictor_of(current).run(examples).predictions
    tell(_Step("its answers were compared with the current version's"))
    return _compared(current, new, before, answers)


def _answer(predictor: Predictor, example: dict[str, Any], called: str) -> Answer:
    outcome = predictor.run([example])
    answer = outcome.predictions[0]
    if answer is None:
        raise VersionRefused(f"refuses {called}: {_listed(outcome.rejections[0])}")
    return answer


def _check_place(current: Bundle, new: Bundle) -> None:
    from fairlead.repository.compatibility import incompatibilities

    if problems := incompatibilities(current.manifest, new.manifest):
        raise VersionRefused(_other_form(current, problems))


def _compared(current: Bundle, new: Bundle, before: Sequence[Answer | None], now: Sequence[Answer]) -> _Passed:
    from fairlead.repository.compatibility import answer_difference, answer_problems

    # The current version need not take the new one's example, which may have a feature more.
    pairs = [(one, other) for one, other in zip(before, now, strict=True) if one is not None]
    if "function" in (current.manifest.kind, new.manifest.kind):
        problems = [problem for one, other in pairs for problem in answer_problems(one, other)]
        if problems:
            raise VersionRefused(_other_form(current, list(dict.fromkeys(problems))))
    difference = max((answer_difference(one, other) for one, other in pairs), default=None)
    return _Passed(len(now), None if difference is None else repr(difference))


def _other_form(current: Bundle, problems: Sequence[str]) -> str:
    return (
        f"expected what can take the place of version {current.manifest.version}, got other inputs or outputs: "
        f"{_listed(problems)}: serve it under a name of its own, or start the server with it"
    )


def _listed(problems: Sequence[str | Problem]) -> str:
    more = f"; and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
    return "; ".join(map(str, problems[:_SHOWN_PROBLEMS])) + more


def _cut(reason: str) -> str:
    # A path may hold bytes that are no UTF-8.
    return reason.encode(errors="backslashreplace").decode()[:_SHOWN_CHARACTERS]


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
