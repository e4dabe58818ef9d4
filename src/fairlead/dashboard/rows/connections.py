"""Connections to PostgreSQL: as many as threads ask at once, made again after the server was away.

They can change nothing, and no statement takes for ever. Layer L3; imports ADBC's driver.

Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from fairlead.dashboard.rows.address import secrets_of, with_limits, without_password
from fairlead.errors import DashboardError
from fairlead.extras import require

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
VARIABLE = "FAIRLEAD_ROWS"
# A page asks for many things at once, which shall not wait in turn for a server that does not answer.
_PAUSE_S = 1.0
# The server itself ends a statement that takes too long; one that does not even do that is given up a little later.
_TIMEOUT_S = 10.0
_MARGIN_S = 3.0
_AWAY = "see whether the server is up; rows are shown again once it answers"
_TIMED_OUT = "57014"
_GOING = ("08", "57P")
# Connections of the process that this one was forked from: to close them would end them there.
_INHERITED: list[Any] = []


class Server:
    """A server. Threads may share it, and a process may be forked.

    Attributes
    ----------
    shown : the address without its password.
    errors : what `ask` raises.
    """

    def __init__(self, uri: str) -> None:
        self.shown = without_password(uri)
        self._uri = uri
        self._dbapi = require("adbc_driver_postgresql.dbapi", "postgres")
        self.errors: type[Exception] = self._dbapi.Error
        self._lock = threading.Lock()
        self._idle: list[Any] = []
        self._process = os.getpid()
        self._failure: Exception | None = None
        self._failed_at = 0.0

    def ask(self, query: str, parameters: Sequence[str | None]) -> pa.Table:
        """Send a query and give its answer, an Arrow table; once more where the connection was no more."""
        connection = self._take()
        if connection is not None:
            try:
                return self._run(connection, query, parameters)
            except self.errors as error:
                if not _is_gone(error):
                    raise
        return self._run(self._connect(), query, parameters)

    def told(self, error: Exception, where: str) -> DashboardError:
        """Say what went wrong and, if it is what was asked, where to mend it; without a password."""
        # The driver puts the query in front, which has lines of its own.
        reason = re.split(r"(?:ERROR|FATAL): +|\[libpq\] ", str(error))[-1].strip().partition("\n")[0]
        for secret in secrets_of(self._uri):
            reason = reason.replace(secret, "***")
        if state_of(error) == _TIMED_OUT:
            mend = f"it may take {_TIMEOUT_S:g} s: have the database index what it looks for"
        elif not _is_gone(error):
            mend = f"see {where}"
        elif "password" in reason or "authentication" in reason:
            mend = f"set {VARIABLE} to the address with its password, or PGPASSWORD"
        else:
            mend = _AWAY
        return DashboardError(f"{self.shown}: {reason}: {mend}")

    @contextlib.contextmanager
    def connected(self) -> Iterator[Any]:
        """Give a connection of its own, for what has to be asked over one."""
        with contextlib.closing(self._connect()) as connection:
            yield connection

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self) -> Any | None:
        with self._lock:
            if self._process != os.getpid():
                _INHERITED.extend(self._idle)
                self._idle = []
                self._process = os.getpid()
            return self._idle.pop() if self._idle else None

    def _run(self, connection: Any, query: str, parameters: Sequence[str | None]) -> pa.Table:
        """Ask, and keep the connection for the next one if it is still there."""
        limit_s = _TIMEOUT_S + _MARGIN_S
        try:
            table = _within(limit_s, lambda: _fetch(connection, query, parameters), connection.close)
        except TimeoutError as error:
            self.close()
            silence = DashboardError(f"{self.shown}: no answer within {limit_s:g} s: {_AWAY}")
            self._failed(silence)
            raise silence from error
        except self.errors as error:
            if _is_gone(error):
                with contextlib.suppress(self.errors):
                    connection.close()
            else:
                self._keep(connection)
            raise
        self._keep(connection)
        return table

    def _failed(self, error: Exception) -> None:
        self._failure, self._failed_at = error, time.monotonic()

    def _keep(self, connection: Any) -> None:
        with self._lock:
            self._idle.append(connection)

    def _connect(self) -> Any:
        if self._failure is not None and time.monotonic() - self._failed_at < _PAUSE_S:
            raise self._failure
        try:
            connection = self._dbapi.connect(with_limits(self._uri), autocommit=True)
        except self.errors as error:
            self._failed(error)
            raise
        self._failure = None
        try:
            with connection.cursor() as cursor:
                cursor.execute("SET default_transaction_read_only = on")
                cursor.execute(f"SET statement_timeout = {_TIMEOUT_S * 1000:.0f}")
        except BaseException:
            connection.close()
            raise
        return connection


def _within(limit_s: float, call: Callable[[], T], close: Callable[[], None]) -> T:
    """Give what a call gives, unless it takes too long: the driver waits for ever for a server that is silent.

    Raises
    ------
    TimeoutError
        When it is left to itself, in a thread; `close` is called there when it ends after all.
    """
    answer: Future[T] = Future()

    def work() -> None:
        try:
            found = call()
        except BaseException as error:
            tell = partial(answer.set_exception, error)
        else:
            tell = partial(answer.set_result, found)
        try:
            tell()
        except InvalidStateError:  # nobody waits for it any more
            close()

    threading.Thread(target=work, name="rows", daemon=True).start()
    try:
        return answer.result(limit_s)
    except TimeoutError:
        if answer.cancel():
            raise
        return answer.result()


def _fetch(connection: Any, query: str, parameters: Sequence[str | None]) -> pa.Table:
    import pyarrow as pa

    bound = pa.table({str(place): pa.array([value], pa.string()) for place, value in enumerate(parameters)})
    with connection.cursor() as cursor:
        cursor.execute(query, bound if parameters else None)
        return cursor.fetch_arrow_table()


def _is_gone(error: Exception) -> bool:
    """Whether it is the connection that failed, not the query: the server says nothing, or that it goes."""
    state = state_of(error)
    return state.startswith(_GOING) if state else type(error).__name__ == "OperationalError"


def state_of(error: Exception) -> str:
    """Give the server's code of an error, such as 22P02; nothing when the error is not the server's."""
    return getattr(error, "sqlstate", None) or ""
