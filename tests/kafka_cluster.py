"""A Kafka cluster for tests: librdkafka's own mock of one, which speaks Kafka's protocol over TCP.

A pytest plugin, loaded by tests/conftest.py. It runs in a process of its own, which takes commands on standard input
and ends when that does. It keeps what tests put there: choose names of your own.
"""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

END_S = 20
# Source: Apache Kafka protocol guide, "API Keys" and "Error Codes".
PRODUCE, OFFSET_COMMIT, JOIN_GROUP = 0, 8, 11
NOT_LEADER, COORDINATOR_NOT_AVAILABLE = 6, 15


class KafkaCluster:
    """A cluster of one broker.

    Attributes
    ----------
    servers : ``host:port``.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # librdkafka tells that it knows no broker, and that one is down
            text=True,
        )
        self.servers = self._read()

    def make(self, topic: str, partitions: int) -> str:
        """Make a topic, and give its address."""
        self._tell("topic", topic, partitions)
        return f"kafka://{self.servers}/{topic}"

    def stop(self) -> None:
        """Cut all connections, and take no more of them."""
        self._tell("down")

    def start(self) -> None:
        self._tell("up")

    def fail(self, request: int, error: int, times: int) -> None:
        """Answer the next requests of a kind with an error."""
        self._tell("fail", request, error, times)

    def delay_second(self, request: int, delay_ms: int) -> None:
        """Answer the next request of a kind at once, and the one after it late."""
        self._tell("delay", request, delay_ms)

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(END_S)
        self._process.stdout.close()

    def _tell(self, *words: object) -> None:
        assert self._process.stdin is not None
        print(*words, file=self._process.stdin, flush=True)
        answer = self._read()
        assert answer == "0", f"{words}: {answer}"

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the mock cluster has ended"
        return line


@pytest.fixture(scope="session")
def kafka_cluster() -> Iterator[KafkaCluster]:
    """Give a Kafka cluster."""
    for library in ("confluent_kafka", "aiokafka", "faststream"):
        pytest.importorskip(library, reason=f"{library} is not installed: make install")
    cluster = KafkaCluster()
    try:
        yield cluster
    finally:
        cluster.end()


def _serve() -> None:
    """Run the cluster, in the process of its own. Source: librdkafka, src/rdkafka_mock.h."""
    library = _librdkafka()
    library.rd_kafka_conf_new.restype = ctypes.c_void_p
    library.rd_kafka_new.restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_new.restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    reason = ctypes.create_string_buffer(512)
    client = library.rd_kafka_new(0, ctypes.c_void_p(library.rd_kafka_conf_new()), reason, ctypes.c_size_t(512))
    assert client, reason.value
    cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(ctypes.c_void_p(client), 1))
    # A real broker waits three seconds for more members before a group begins.
    library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, ctypes.c_int32(100))
    print(library.rd_kafka_mock_cluster_bootstraps(cluster).decode(), flush=True)
    for line in sys.stdin:
        print(_obey(library, cluster, *line.split()), flush=True)


def _obey(library: ctypes.CDLL, cluster: ctypes.c_void_p, verb: str, *words: str) -> int:
    if verb == "topic":
        code = library.rd_kafka_mock_topic_create(cluster, words[0].encode(), int(words[1]), 1)
    elif verb == "fail":
        request, error, times = map(int, words)
        errors = (ctypes.c_int * times)(*[error] * times)
        library.rd_kafka_mock_push_request_errors_array(
            cluster, ctypes.c_int16(request), ctypes.c_size_t(times), errors
        )
        code = 0
    elif verb == "delay":
        request, delay_ms = map(int, words)
        pairs = map(ctypes.c_int, (0, 0, 0, delay_ms))
        code = library.rd_kafka_mock_broker_push_request_error_rtts(
            cluster, ctypes.c_int32(1), ctypes.c_int16(request), ctypes.c_size_t(2), *pairs
        )
    else:
        code = getattr(library, f"rd_kafka_mock_broker_set_{verb}")(cluster, ctypes.c_int32(1))
    return int(code)


def _librdkafka() -> ctypes.CDLL:
    """Load the library that confluent-kafka brings along."""
    spec = importlib.util.find_spec("confluent_kafka")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    found = [*package.parent.glob("confluent_kafka.libs/librdkafka*"), *package.glob(".dylibs/librdkafka*")]
    return ctypes.CDLL(str(found[0]))


if __name__ == "__main__":
    _serve()
