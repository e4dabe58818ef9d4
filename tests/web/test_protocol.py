"""HTTP over raw sockets, by the short way and the long one: what clients, good and bad, put on the wire."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from load import Answer, Served, eventually, get, post, pss_kb

GOOD = {"tenure": 41, "charges": 79.85, "contract": "yearly"}
OTHER = {"tenure": 1, "charges": 20.0, "contract": "monthly"}
READ_TIMEOUT_S, KEEP_ALIVE_S, MAX_BODY_BYTES = 2, 3, 1_000_000
ORIGIN = "https://page.example"


@pytest.fixture(scope="module")
def server(churn_bundle: Path, sleeper_bundle: Path) -> Iterator[Served]:
    """Give a server with short limits; do not stop it."""
    limits = {"read_timeout_s": READ_TIMEOUT_S, "keep_alive_s": KEEP_ALIVE_S, "max_body_bytes": MAX_BODY_BYTES}
    with Served(churn_bundle, sleeper_bundle, cors_origins=ORIGIN, **limits) as running:
        yield running


def churn(body: object = GOOD, headers: str = "", query: str = "") -> bytes:
    return post(body, f"/models/churn/predict{query}", headers)


def sleeper(seconds: float) -> bytes:
    return post({"seconds": seconds}, "/models/sleeper/predict")


class Client:
    """A blocking connection."""

    def __init__(self, server: Served, timeout_s: float = 15, context: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection((server.host, server.port), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self._kept = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Client:
        self.socket.sendall(data)
        return self

    def answer(self, is_head: bool = False) -> Answer:
        while b"\r\n\r\n" not in self._kept:
            self._more()
        head, _, rest = self._kept.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        status = int(first.split(" ")[1])
        length = 0 if is_head or status == 100 else int(headers["content-length"])
        while len(rest) < length:
            self._more()
            rest = self._kept.partition(b"\r\n\r\n")[2]
        self._kept = rest[length:]
        return Answer(status, headers, rest[:length])

    def _more(self) -> None:
        data = self.socket.recv(262_144)
        assert data, f"closed after {self._kept!r}"
        self._kept += data

    def ask(self, request: bytes) -> Answer:
        return self.send(request).answer(request.startswith(b"HEAD"))

    def is_closed(self, within_s: float = 10) -> bool:
        """Whether the server closes; nothing more may come before."""
        self.socket.settimeout(within_s)
        try:
            return self._kept + self.socket.recv(1000) == b""
        except TimeoutError:
            return False


@pytest.fixture
def client(server: Served) -> Iterator[Client]:
    with Client(server) as connected:
        yield connected


@pytest.fixture(scope="module")
def wanted(server: Served) -> Answer:
    with Client(server) as client:
        answer = client.ask(churn())
    assert answer.status == 200
    return answer


@pytest.fixture(scope="module")
def other(server: Served) -> Answer:
    with Client(server) as client:
        return client.ask(churn(OTHER))


def test_several_requests_at_once_are_answered_in_order(client: Client, wanted: Answer, other: Answer) -> None:
    client.send(churn() + churn(OTHER) + churn([]) + churn(b"{") + get("/livez") + churn() + churn(OTHER))
    found = [client.answer() for _ in range(7)]
    assert [answer.status for answer in found] == [200, 200, 200, 400, 200, 200, 200]
    assert found[0].body == found[5].body == wanted.body
    assert found[1].body == found[6].body == other.body
    assert found[2].body == b"[]"
    assert found[4].json == {"status": "live"}
    assert len({answer.headers["x-request-id"] for answer in found}) == 7


def test_a_quick_request_behind_a_slow_one_waits_its_turn(client: Client, wanted: Answer) -> None:
    client.send(sleeper(0.3) + churn() + get("/livez") + sleeper(0.1) + churn())
    bodies = [client.answer().json for _ in range(5)]
    assert bodies == [{"prediction": {"slept": 0.3}}, wanted.json, {"status": "live"},
                      {"prediction": {"slept": 0.1}}, wanted.json]  # fmt: skip


def test_hundreds_at_once(client: Client, wanted: Answer, other: Answer) -> None:
    # More than one packet, and the packets end anywhere.
    threading.Thread(target=client.send, args=((churn() + churn(OTHER)) * 300,)).start()
    for _ in range(300):
        assert client.answer().body == wanted.body
        assert client.answer().body == other.body


def test_byte_by_byte(client: Client, wanted: Answer) -> None:
    for byte in churn() + get("/livez"):
        client.send(bytes([byte]))
    assert client.answer().body == wanted.body
    assert client.answer().status == 200


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_chunked_body(client: Client, wanted: Answer, size: int) -> None:
    body = json.dumps(GOOD).encode()
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    head = b"POST /models/churn/predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    sent = head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    for _ in range(2):
        assert client.ask(sent).body == wanted.body


def test_a_body_in_many_packets(client: Client) -> None:
    body = json.dumps([GOOD] * 2000).encode()
    request = churn(body)
    for start in range(0, len(request), 5000):
        client.send(request[start : start + 5000])
        time.sleep(0.001)
    assert len(client.answer().json) == 2000
    assert client.ask(churn()).status == 200


def test_expect_100_continue(client: Client, wanted: Answer) -> None:
    head, _, body = churn(headers="expect: 100-continue\r\n").partition(b"\r\n\r\n")
    assert client.ask(head + b"\r\n\r\n").status == 100
    assert client.ask(body).body == wanted.body
    large = (
        b"POST /models/churn/predict HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 99999999\r\n\r\n"
    )
    assert client.ask(large).status == 413


def test_http_1_0_and_connection_close(server: Served, wanted: Answer) -> None:
    for request in (churn().replace(b"HTTP/1.1", b"HTTP/1.0"), churn(headers="Connection: close\r\n")):
        with Client(server) as client:
            answer = client.ask(request)
            assert answer.body == wanted.body
            assert answer.headers["connection"] == "close"
            assert client.is_closed()


def test_an_upgrade_is_not_made_and_the_request_is_answered(server: Served, wanted: Answer) -> None:
    # What Java's HttpClient and `curl --http2` send.
    headers = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAA\r\n"
    with Client(server) as client:
        assert client.ask(churn(headers=headers)).body == wanted.body
    with Client(server) as client:
        assert client.ask(get("/livez", "Connection: Upgrade\r\nUpgrade: websocket\r\n")).status == 200


def test_head_has_no_body(client: Client) -> None:
    query = "?tenure=41&charges=79.85&contract=yearly"
    answer = client.ask(b"HEAD /models/churn/predict%b HTTP/1.1\r\nhost: x\r\n\r\n" % query.encode())
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) > 10
    assert client.ask(churn()).status == 200


def test_a_body_that_is_too_large_is_refused_while_it_comes_and_the_connection_goes_on(client: Client) -> None:
    body = b" " * (MAX_BODY_BYTES + 1)
    request = churn(body)
    client.send(request[:2000])
    assert client.answer().status == 413
    client.send(request[2000:])
    assert client.ask(churn()).status == 200
    # Without a length said before.
    client.send(b"POST /models/churn/predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(12):
        client.send(b"%x\r\n%b\r\n" % (100_000, b" " * 100_000))
    assert client.answer().status == 413
    assert client.ask(b"0\r\n\r\n" + churn()).status == 200


@pytest.mark.parametrize("name", ["one", "many", "in pieces", "url"])
def test_headers_that_are_too_large(server: Served, name: str) -> None:
    lines = {
        "one": b"x-a: " + b"a" * 40_000,
        "many": b"\r\n".join(b"x-%d: 1" % number for number in range(4000)),
        "in pieces": b"x-a: " + b"a" * 40_000,
        "url": b"x-a: 1",
    }[name]
    path = b"/predict?" + b"a" * (40_000 if name == "url" else 1)
    request = b"POST %b HTTP/1.1\r\nhost: x\r\n%b\r\ncontent-length: 2\r\n\r\n{}" % (path, lines)
    with Client(server) as client:
        step = 1000 if name == "in pieces" else len(request)
        for start in range(0, len(request), step):
            try:
                client.send(request[start : start + step])
            except OSError:
                break
            time.sleep(0.001)
        answer = client.answer()
        assert answer.status == 431
        assert answer.headers["content-type"] == "application/problem+json"
        assert client.is_closed()


def test_headers_just_small_enough(client: Client, wanted: Answer) -> None:
    assert client.ask(churn(headers=f"x-a: {'a' * 31_000}\r\n")).body == wanted.body
    # Much that ends in the middle of a head is still many small heads.
    requests = churn() * 400
    client.send(requests[:-100])
    for _ in range(399):
        assert client.answer().status == 200
    assert client.ask(requests[-100:]).status == 200


def test_what_is_sent_too_slowly_is_given_up(server: Served) -> None:
    request = churn()
    with Client(server) as silent, Client(server) as half_head, Client(server) as half_body:
        half_head.send(request[:40])
        half_body.send(request[:-3])
        start = time.monotonic()
        assert half_head.answer().status == 408
        assert time.monotonic() - start > READ_TIMEOUT_S / 2
        assert half_head.is_closed()
        assert half_body.is_closed()
        assert silent.is_closed()


def test_slow_headers_do_not_spoil_the_answer_before_them(client: Client) -> None:
    client.send(sleeper(READ_TIMEOUT_S + 1.5) + churn()[:30])
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert client.is_closed()


def test_an_idle_connection_is_closed_but_not_too_soon(server: Served) -> None:
    with Client(server) as short_way, Client(server) as long_way:
        assert short_way.ask(churn()).status == long_way.ask(get("/livez")).status == 200
        start = time.monotonic()
        assert short_way.is_closed(20)
        assert long_way.is_closed(20)
        assert time.monotonic() - start > KEEP_ALIVE_S * 0.8


def test_a_client_that_never_reads_is_given_up_and_fills_no_memory(server: Served) -> None:
    before = pss_kb(server.process.pid) or 0
    request = churn([GOOD] * 500)
    sent = 0
    with Client(server) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.socket.setblocking(False)
        deadline = time.monotonic() + READ_TIMEOUT_S + 15
        is_given_up = False
        while not is_given_up:
            assert time.monotonic() < deadline
            try:
                if select.select([], [client.socket], [], 0.1)[1]:
                    sent += client.socket.send(request)
            except (ConnectionResetError, BrokenPipeError):
                is_given_up = True
            assert sent < 100_000_000
    assert (pss_kb(server.process.pid) or 0) < before + 60_000


def test_a_slow_reader_gets_its_whole_answer(server: Served) -> None:
    rows = [{"tenure": 1, "contract": ""}] * 32_000  # megabytes, more than the sockets hold
    with Client(server) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.send(churn(rows))
        got = 0
        start = time.monotonic()
        while time.monotonic() - start < READ_TIMEOUT_S + 2:
            got += len(client.socket.recv(8192))
            time.sleep(0.1)
        tail = b""
        while not tail.endswith(b"}]"):
            data = client.socket.recv(1_000_000)
            assert data
            tail = (tail + data)[-10:]
            got += len(data)
        assert got > 500_000


def test_a_client_that_went_away_costs_nothing(server: Served) -> None:
    with Client(server) as running:
        running.send(sleeper(0.3))
        time.sleep(0.05)
        for _ in range(5):
            with Client(server) as gone:
                gone.send(sleeper(1.0))
                time.sleep(0.02)
        start = time.monotonic()
        with Client(server) as last:
            assert last.ask(sleeper(0.0)).status == 200
        assert time.monotonic() - start < 2.5
        assert running.answer().status == 200


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"nonsense\r\n\r\n",
        b"POST /models/churn/predict HTTP/9.9\r\n\r\n",
        b"POST /models/churn/predict HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
        b"POST /models/churn/predict HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}",
        b"POST /models/churn/predict HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n{}",
        b"POST /models/churn/predict HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /models/churn/predict HTTP/1.1\r\ncontent-length: 99999999999999999999999999\r\n\r\n",
        b"POST /models/churn/predict HTTP/1.1\r\nx y: 1\r\n\r\n",
        b"POST /models/churn/predict HTTP/1.1\r\nx: \x00\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused(server: Served, nonsense: bytes) -> None:
    with Client(server) as client:
        answer = client.ask(nonsense)
        assert answer.status == 400
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json["status"] == 400
        assert client.is_closed()


def test_nonsense_after_a_request_does_not_take_its_answer(client: Client) -> None:
    client.send(sleeper(0.2) + b"nonsense\r\n\r\n")
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert client.is_closed()


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [("abc-123", True), ("a" * 500, False), ("a b", False), ("a\tb", False), ("ä", False), ("a<script>", False)],
)
def test_request_ids(client: Client, given: str, is_kept: bool) -> None:
    for request in (churn(headers=f"x-request-id: {given}\r\n"), get("/livez", f"x-request-id: {given}\r\n")):
        found = client.ask(request).headers["x-request-id"]
        assert (found == given) == is_kept
        assert re.fullmatch(r"[\x21-\x7e]{1,200}", found)


def test_nothing_can_be_injected_into_the_answers_headers(client: Client) -> None:
    for line in ("x-request-id: a%0d%0ax-evil: 1", "x-request-id: a\rx-evil: 1"):
        client.send(churn(headers=f"{line}\r\n"))
        answer = client.answer()
        assert "x-evil" not in answer.headers
        if answer.status == 400:
            break


def test_pages_of_other_origins(client: Client, wanted: Answer) -> None:
    ask = f"origin: {ORIGIN}\r\naccess-control-request-method: POST\r\naccess-control-request-headers: content-type\r\n"
    preflight = client.ask(f"OPTIONS /models/churn/predict HTTP/1.1\r\nhost: x\r\n{ask}\r\n".encode())
    assert preflight.status == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    answer = client.ask(churn(headers=f"origin: {ORIGIN}\r\n"))
    assert answer.body == wanted.body
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
    evil = client.ask(churn(headers="origin: https://evil.example\r\n"))
    assert "access-control-allow-origin" not in evil.headers


BODIES = [
    json.dumps(body).encode()
    for body in (GOOD, [GOOD, OTHER], [], {}, [1], {"tenure": "x"}, [GOOD, {}], 5, None, GOOD | {"extra": 1})
] + [b"", b"{", b"\xff", b"[" * 5000]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("headers", ["", "content-encoding: gzip\r\n", "x-request-timeout: no\r\n", "accept: x/y\r\n"])
def test_both_ways_give_the_same_answer_byte_for_byte(client: Client, body: bytes, headers: str) -> None:
    # A query string leads the long way round.
    short, long = client.ask(churn(body, headers)), client.ask(churn(body, headers, "?"))
    assert short.status == long.status
    # No cache keeps either, so that `vary` tells nobody anything.
    different = ("date", "x-request-id", "vary")
    one, two = ({k: v for k, v in a.headers.items() if k not in different} for a in (short, long))
    assert one == two
    assert short.body.replace(short.headers["x-request-id"].encode(), b"") == long.body.replace(
        long.headers["x-request-id"].encode(), b""
    )


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_request_on_an_idle_connection_is_answered_while_the_server_ends(churn_bundle: Path, sign: int) -> None:
    with Served(churn_bundle) as server:
        with Client(server) as early, Client(server) as late, Client(server) as unused, Client(server) as silent:
            assert early.ask(post(GOOD)).status == late.ask(get("/livez")).status == 200
            server.process.send_signal(sign)
            time.sleep(0.15)  # the port is closed now, or about to be
            for client in (early, unused):
                answer = client.ask(post(GOOD))
                assert (answer.status, answer.headers["connection"]) == (200, "close")
                assert client.is_closed()
            time.sleep(0.3)
            answer = late.ask(post(GOOD))
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert silent.is_closed()
        assert server.process.wait(10) == 0


def test_an_address_of_ipv6(churn_bundle: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with Served(churn_bundle, host="::1") as server, Client(server) as client:
        assert client.ask(post(GOOD)).status == 200


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of an authority, and of a server's and a client's certificate signed by it."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
            "-subj", "/CN=test authority", "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    for name in ("server", "client"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
                "-subj", f"/CN={name}")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-out", f"{name}.pem", "-days", "2", "-extfile", "names")  # fmt: skip
    return folder


@pytest.mark.parametrize("is_client_known", [True, False])
def test_tls(churn_bundle: Path, certificates: Path, is_client_known: bool) -> None:
    settings: dict[str, Any] = {
        "tls_certificate": certificates / "server.pem",
        "tls_key": certificates / "server.key",
        "read_timeout_s": READ_TIMEOUT_S,
    }
    if is_client_known:
        settings["tls_client_ca"] = certificates / "ca.pem"
    stranger = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    known = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    known.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    with Served(churn_bundle, **settings) as server:
        with Client(server, context=known if is_client_known else stranger) as client:
            client.send(post(GOOD) * 3)
            assert [client.answer().status for _ in range(3)] == [200] * 3
            assert len(client.ask(post([GOOD] * 3000)).json) == 3000
            server_id = client.ask(get("/livez")).headers["x-request-id"]
            assert server_id
        if is_client_known:
            assert not is_let_in(server, stranger)
        assert not is_let_in(server, None)  # plain HTTP where TLS is spoken
        server.process.terminate()
        assert server.process.wait(10) == 0


def is_let_in(server: Served, context: ssl.SSLContext | None) -> bool:
    try:
        with Client(server, context=context) as client:
            return b"200" in client.send(post(GOOD)).socket.recv(1000)
    except OSError:
        return False


def test_it_writes_nothing_that_is_wrong_into_the_log(server: Served) -> None:
    """Run last: none of all this is the server's fault."""
    eventually(lambda: True)
    assert "Traceback" not in server.log()
    assert os.path.exists(f"/proc/{server.process.pid}")  # noqa: PTH110  # no part of a path
