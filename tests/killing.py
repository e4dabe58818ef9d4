"""A consumer that is killed again and again: processes forked from one that has everything imported.

Every process is the whole of `fairlead stream`, and every kill a SIGKILL at a moment that nobody chose.

    python killing.py BUNDLE SETTINGS

forks a consumer for each line on its standard input, and tells its process id and, when it has ended, how.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORK_S = 120


class Forks:
    """Processes of one consumer, one at a time.

    Parameters
    ----------
    settings, environ : of the consumer.
    """

    def __init__(self, bundle: Path, settings: dict[str, Any], environ: dict[str, str]) -> None:
        command = [sys.executable, __file__, str(bundle), json.dumps(settings)]
        self._log = Path(settings["state_directory"]) / "log"
        with self._log.open("ab") as log:
            self._parent = subprocess.Popen(
                command, env={**os.environ, **environ}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, *_: object) -> None:
        self._parent.kill()
        self._parent.communicate()

    def start(self) -> int:
        """Start one; give its process id."""
        assert self._parent.stdin is not None
        self._parent.stdin.write(b"\n")
        self._parent.stdin.flush()
        return self._told()

    def is_up(self, process: int) -> bool:
        """Whether it takes events, and signals."""
        return f" {process} fairlead.stream: " in self._log.read_text()

    def ended(self) -> int:
        """Wait for its end; give its exit code, negative for a signal."""
        return self._told()

    def _told(self) -> int:
        assert self._parent.stdout is not None
        return int(self._parent.stdout.readline())


def keep_killing(
    forks: Forks, answered: Callable[[], int], is_settled: Callable[[], bool], n_records: int, kills: int
) -> None:
    """Start a consumer and kill it, so many times; then let one finish and stop it in order.

    Parameters
    ----------
    answered : gives how many records are answered so far.
    is_settled : whether all is committed.
    n_records : how many there are to be.
    """
    rng = random.Random(6)
    for number in range(kills):
        process = forks.start()
        # Some are killed before they did anything, none after all is done.
        more = rng.randint(0, 2 * (n_records // (kills + 2)))
        _wait_for(answered, min(answered() + more, n_records * (number + 1) // (kills + 1)))
        time.sleep(rng.random() * 0.01)
        os.kill(process, signal.SIGKILL)
        assert forks.ended() == -signal.SIGKILL
    last = forks.start()
    _wait_for(answered, n_records)
    # It may be that those before it had answered all, and committed only a part of that.
    _wait_for(lambda: int(is_settled()), 1)
    _wait_for(lambda: int(forks.is_up(last)), 1)
    os.kill(last, signal.SIGTERM)
    assert (code := forks.ended()) == 0, code


def _wait_for(answered: Callable[[], int], count: int) -> None:
    deadline = time.monotonic() + WORK_S
    while answered() < count:
        assert time.monotonic() < deadline, f"{answered()} of {count} are answered"
        time.sleep(0.002)


def main(bundle: str, settings: dict[str, Any]) -> None:
    import fairlead.monitor.metrics
    import fairlead.predict.predictor
    import fairlead.stream.port
    import fairlead.stream.scoring  # noqa: F401  # what is imported here is there in every process that is forked
    from fairlead.config import CacheSettings, ModelSettings, StreamSettings
    from fairlead.stream.broker import SourceOptions
    from fairlead.stream.brokers import open_source
    from fairlead.stream.run import run

    # It connects to nothing, and imports its library.
    checkpoints = Path(settings["state_directory"]) / "checkpoints.sqlite"
    open_source(settings["from_"], SourceOptions(environ=os.environ, checkpoints=checkpoints))

    for _ in sys.stdin.buffer:
        process = os.fork()
        if not process:
            run(ModelSettings(bundle), StreamSettings(**settings), CacheSettings())
            os._exit(0)
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
