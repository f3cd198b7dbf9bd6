"""Object stores on this machine, and what can happen on the way to one.

Real servers in processes of their own: moto's for S3, fake-gcs-server for Google Cloud
Storage (`make gcs-emulator` builds it). A proxy before them makes requests fail.
"""

import contextlib
import http.client
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pipeline.storage import object_paths
from pipeline.storage.object_paths import ObjectPath
from tests.support.files import REPOSITORY

FOR_EVER = 1 << 30
_GCS = "fake-gcs-server"
# Google's client asks for this when it likes, in a thread of its own, to trace.
_OF_BUCKET = re.compile(r"/storage/v1/b/[^/?]+\?projection=noAcl")
_START_SECONDS = 60


def gcs_emulator() -> str | None:
    """The emulator's binary, where there is one."""
    built = REPOSITORY / ".venv" / "bin" / _GCS
    return str(built) if built.is_file() else shutil.which(_GCS)


def s3_environment(port: int) -> dict[str, str]:
    """For boto3, here and in programs that are started."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_REGION": "us-east-1",
    }


def gs_environment(port: int) -> dict[str, str]:
    """For Google's client."""
    return {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}


@contextlib.contextmanager
def s3_server() -> Iterator[int]:
    """Moto's S3; yields its port."""
    port = _free_port()
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running(words, f"http://127.0.0.1:{port}/moto-api/"):
        yield port


@contextlib.contextmanager
def gs_server(binary: str, *, named: int | None = None) -> Iterator[int]:
    """A Google Cloud Storage; yields its port.

    Args:
        binary: of the emulator.
        named: the port that it tells its clients to go on at: that of the proxy.
    """
    port = _free_port()
    words = [binary, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    words += ["-backend", "memory", "-log-level", "error"]
    words += ["-external-url", f"http://127.0.0.1:{named or port}"]
    with _running(words, f"http://127.0.0.1:{port}/_internal/healthcheck"):
        yield port


@dataclass
class Fault:
    """What happens to requests.

    Attributes:
        what: `reset` before an answer; `error`, a 503; `slow`, no answer; `cut_up`,
            half of what is uploaded arrives; `cut_down`, half of an answer does.
        times: how often.
        method: of the requests, or any.
        seen: how often it has happened.
    """

    what: str
    times: int = FOR_EVER
    method: str = ""
    seen: int = 0


class Proxy:
    """Hands HTTP requests on to a server, unless a fault comes between.

    Attributes:
        port: where it listens.
        requests: "METHOD path" of all that came.
    """

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.requests: list[str] = []
        self.upstream = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @contextlib.contextmanager
    def failing(self, what: str, **options: object) -> Iterator[Fault]:
        """Has requests fail, for a while."""
        self.fault = Fault(what, **options)
        try:
            yield self.fault
        finally:
            self.fault = None

    def fate(self, method: str, path: str) -> str:
        """What is to happen to a request; "" for nothing."""
        if _OF_BUCKET.match(path):
            return ""
        with self._lock:
            self.requests.append(f"{method} {path}")
            fault = self.fault
            if not fault or fault.seen >= fault.times or fault.method not in method:
                return ""
            fault.seen += 1
            return fault.what

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(_Handler):
            def __getattr__(self, name: str) -> Callable[[], None]:
                if name.startswith("do_"):
                    return lambda: self.hand_on(proxy)
                raise AttributeError(name)

        return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def hand_on(self, proxy: Proxy) -> None:
        fate = proxy.fate(self.command, self.path)
        length = int(self.headers.get("Content-Length", 0))
        if fate == "reset":
            self._reset(self.connection)
        elif fate == "slow":
            time.sleep(2)
            self._reset(self.connection)
        elif fate == "error":
            self.rfile.read(length)
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif fate == "cut_up":
            self._send_half(proxy, length)
        else:
            self._answer(proxy, self._body(length), cut=fate == "cut_down")

    def _body(self, length: int) -> bytes:
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(length)
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return body

    def _send_half(self, proxy: Proxy, length: int) -> None:
        """Half of the request reaches the server, and then both ends are gone."""
        lines = [f"{self.command} {self.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        with socket.create_connection(("127.0.0.1", proxy.upstream)) as server:
            server.sendall("\r\n".join([*lines, "", ""]).encode())
            server.sendall(self.rfile.read(length // 2))
            time.sleep(0.1)  # so that it has read them
            self._reset(server)
        self._reset(self.connection)

    def _answer(self, proxy: Proxy, body: bytes, *, cut: bool) -> None:
        server = http.client.HTTPConnection("127.0.0.1", proxy.upstream)
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in ("transfer-encoding", "expect", "content-length")
        }
        headers["Content-Length"] = str(len(body))
        server.request(self.command, self.path, body, headers)
        answer = server.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in (
                "transfer-encoding",
                "content-length",
                "connection",
            ):
                self.send_header(name, value)
        told = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", told or str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self._reset(self.connection)
        server.close()

    def _reset(self, connection: socket.socket) -> None:
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.shutdown(socket.SHUT_RD)
            connection.close()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def _running(words: list[str], url: str) -> Iterator[None]:
    """A server, from when it answers on."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    process = subprocess.Popen(
        words,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=Path("/"),
    )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(url):
            assert process.poll() is None, words
            assert time.monotonic() < deadline, words
            time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def put_tree(folder: Path, target: ObjectPath) -> ObjectPath:
    """Copies a folder to a store."""

    def put(path: Path) -> None:
        (target / str(path.relative_to(folder))).upload(path)

    object_paths.at_once(target, put, [p for p in folder.rglob("*") if p.is_file()])
    return target
