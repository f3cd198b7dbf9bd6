"""A web server whose answers are files."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple


class Answers(NamedTuple):
    """A server on this machine.

    Attributes:
        address: `localhost:PORT`.
        root: the folder of the files.
    """

    address: str
    root: Path

    def give(self, path: str, value: object) -> None:
        """Sets what is answered under a path: a text as it is, else as JSON."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(value if isinstance(value, str) else json.dumps(value))


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def serving(root: Path) -> Iterator[Answers]:
    """A server, which has no answers yet."""
    root.mkdir()
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(_Handler, directory=root)
    ) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield Answers(f"localhost:{server.server_port}", root)
        server.shutdown()
