"""Object stores on this machine, and what can happen on the way to one.

Real servers in processes of their own. Moto's speaks S3, and Google Cloud Storage's XML
API, which is S3's protocol with another header; fake-gcs-server has half of that API
(its PUT of an object answers "invalid uploadType"), so Beam's staging alone is tested
with it. Azurite is Microsoft's own emulator. `make store-emulators` installs both. A
proxy before a server makes requests fail.
"""

import base64
import contextlib
import email.utils
import hmac
import http.client
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pipeline.storage import object_paths
from pipeline.storage.object_paths import ObjectPath
from tests.support.files import REPOSITORY

FOR_EVER = 1 << 30
_ACCOUNT = "devstoreaccount1"  # Azurite's own, published
_ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGM"
    "Gw=="
)
_PAGES = {"list-type=2": "max-keys", "comp=list": "maxresults"}  # of S3, of Azure
_START_SECONDS = 60
_STATUS = {"error": 503, "refused": 403, "moved": 301}


def gcs_emulator() -> str | None:
    """The program of fake-gcs-server, where there is one."""
    built = REPOSITORY / ".venv" / "bin" / "fake-gcs-server"
    return str(built) if built.is_file() else shutil.which("fake-gcs-server")


def azurite() -> str | None:
    """Azurite's program, where there is one."""
    installed = REPOSITORY / ".azurite" / "node_modules" / ".bin" / "azurite-blob"
    return str(installed) if installed.is_file() else shutil.which("azurite-blob")


def s3_environment(port: int) -> dict[str, str]:
    """For S3, here and in programs that are started."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_REGION": "us-east-1",
    }


def gs_environment(port: int) -> dict[str, str]:
    """For Google Cloud Storage."""
    return {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}


def az_environment(port: int) -> dict[str, str]:
    """For Azure, with the account that Azurite has."""
    return {
        "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{_ACCOUNT}",
        "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": _ACCOUNT_KEY,
    }


ENVIRONMENTS = {"s3": s3_environment, "gs": gs_environment, "az": az_environment}


@contextlib.contextmanager
def store(scheme: str) -> Iterator["Proxy"]:
    """A server of a store, behind a proxy."""
    proxy, port = Proxy(), _free_port()
    try:
        if scheme == "az":
            words = [azurite() or "", "--inMemoryPersistence", "--silent"]
            words += ["--skipApiVersionCheck", "--disableTelemetry"]
            words += ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
        else:
            words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1"]
            words += ["-p", str(port)]
        with _running(words, port):
            proxy.upstream = port
            yield proxy
    finally:
        proxy.close()


@contextlib.contextmanager
def gs_server(binary: str) -> Iterator[int]:
    """fake-gcs-server, which speaks the JSON API; yields its port."""
    port = _free_port()
    words = [binary, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    words += ["-backend", "memory", "-log-level", "error"]
    words += ["-external-url", f"http://127.0.0.1:{port}"]
    with _running(words, port):
        yield port


def make_bucket(scheme: str, name: str, port: int, *, public: bool = False) -> None:
    """Makes a bucket, or a container of Azure; the server answers at a port.

    Args:
        scheme: of the store.
        name: of the bucket.
        port: of the server.
        public: whether everybody may read a container of Azure.
    """
    if scheme == "az":
        access = {"x-ms-blob-public-access": "container"} if public else {}
        request(port, "PUT", f"/{_ACCOUNT}/{name}?restype=container", **access)
    else:
        request(port, "PUT", f"/{name}")


def put_raw(uri: str, port: int) -> None:
    """Makes an empty object whose key our own client cannot name."""
    scheme, _, rest = uri.partition("://")
    request(port, "PUT", f"/{_ACCOUNT}/{rest}" if scheme == "az" else f"/{rest}")


def sas_token() -> str:
    """Returns what lets its owner do all on Azurite, and does not sign queries."""
    fields = {
        "sp": "rwdlac",
        "ss": "b",
        "srt": "sco",
        "st": "",
        "se": "2099-01-01T00:00:00Z",
        "sip": "",
        "spr": "https,http",
        "sv": "2022-11-02",
        "ses": "",
    }
    text = "".join(f"{line}\n" for line in (_ACCOUNT, *fields.values()))
    given = {name: value for name, value in fields.items() if value}
    return urllib.parse.urlencode(given | {"sig": _signed(text)})


def _signed(text: str) -> str:
    key = base64.b64decode(_ACCOUNT_KEY)
    return base64.b64encode(hmac.digest(key, text.encode(), "sha256")).decode()


def request(
    port: int, method: str, target: str, body: bytes = b"", **more: str
) -> None:
    """Asks a server, as its own tools would; Azurite's with the key of its account.

    Args:
        port: of the server.
        method: of the request.
        target: path and query.
        body: what is sent.
        more: headers of Azure.
    """
    headers = {"Content-Length": str(len(body))} | more
    if target.startswith(f"/{_ACCOUNT}/"):
        place, _, query = target.partition("?")
        headers |= {
            "x-ms-date": email.utils.formatdate(usegmt=True),
            "x-ms-version": "2023-11-03",
        } | ({} if query else {"x-ms-blob-type": "BlockBlob"})
        named = [f"{key}:{value}" for key, value in sorted(headers.items())[1:]]
        length = str(len(body)) if body else ""
        lines = [method, "", "", length, *[""] * 8, *named, f"/{_ACCOUNT}{place}"]
        text = "\n".join(
            [*lines, *(one.replace("=", ":") for one in query.split("&") if one)]
        )
        headers["Authorization"] = f"SharedKey {_ACCOUNT}:{_signed(text)}"
    server = http.client.HTTPConnection("127.0.0.1", port)
    server.request(method, target, body, headers)
    answer = server.getresponse()
    said = answer.read()
    assert answer.status < 300, said
    server.close()


@dataclass
class Fault:
    """What happens to requests.

    Attributes:
        what: `reset` before an answer; `error`, a 503; `refused`, a 403; `moved`, a 301
            as of a bucket of another region; `slow`, no answer; `late`, the right one
            after 2 s; `cut_up`, half of what is uploaded arrives; `cut_down`, half of
            an answer does.
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
        headers: of the newest one.
        page: keys that a listing tells by one request, if not as many as it likes.
    """

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.requests: list[str] = []
        self.headers: dict[str, str] = {}
        self.upstream = self.page = 0
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
        proxy.headers = {name.lower(): value for name, value in self.headers.items()}
        length = int(self.headers.get("Content-Length", 0))
        if fate == "reset":
            self._reset(self.connection)
        elif fate == "slow":
            time.sleep(2)
            self._reset(self.connection)
        elif fate in _STATUS:
            self.rfile.read(length)
            self.send_response(_STATUS[fate])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif fate == "late":
            time.sleep(2)
            self._answer(proxy, self._body(length), cut=False)
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
        pages = [name for mark, name in _PAGES.items() if mark in self.path]
        page = f"&{pages[0]}={proxy.page}" if proxy.page and pages else ""
        server.request(self.command, self.path + page, body, headers)
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
def _running(words: list[str], port: int) -> Iterator[None]:
    """A server, from when it listens on."""
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
        while not _listens(port):
            assert process.poll() is None, words
            assert time.monotonic() < deadline, words
            time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


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
