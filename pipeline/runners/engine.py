"""What is known of a runner of Beam before a job is handed to it.

Beam would wait for ever for an endpoint where nobody is, download what is not
installed, or ask for what was not said.
"""

import os
import shutil
import socket
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from pipeline.storage.object_paths import AnyPath
from pipeline.system.errors import RunError, UsageError

_SECONDS = 5.0
_HERE = ("localhost", "127.0.0.1")

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Engine:
    """A runner of Beam: its defaults, its checks, how long it may take to begin.

    Attributes:
        defaults: returns options for Beam, for a number of workers.
        check_options: refuses options that the job would fail with, or a cluster.
        check_folders: refuses folders, by flag, that the workers cannot reach.
        prepare: changes a pipeline so that the runner can run it.
        cancel: ends a job, by its options, where Beam's own cancelling does not.
        patience: seconds until a worker begins.
        server_options: of its job server, which Beam's SDK does not know, and hands on.
    """

    defaults: Callable[[int], Sequence[str]] = lambda workers: ()
    check_options: Callable[[Options], None] = lambda options: None
    check_folders: Callable[[Mapping[str, Sequence[AnyPath]]], None] = lambda folders: (
        None
    )
    prepare: Callable[[Any], None] = lambda pipeline: None
    cancel: Callable[[Options], None] = lambda options: None
    patience: float = 60.0
    server_options: frozenset[str] = frozenset()

    def check(self, options: Options) -> None:
        """Refuses a runner that is not ready.

        Args:
            options: of Beam, by name.

        Raises:
            UsageError: an option is missing.
            RunError: what an option names is not there.
        """
        if endpoint := options.get("job_endpoint"):
            listening(endpoint, "--job_endpoint")
            _speaking(endpoint, "--job_endpoint")
        self.check_options(options)


def listening(endpoint: str, flag: str) -> None:
    """Refuses an address where nothing takes connections."""
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host or "localhost", int(port)), _SECONDS).close()
    except ValueError as error:
        raise UsageError(f"{flag}={endpoint} is no HOST:PORT") from error
    except OSError as error:
        raise RunError(
            f"nothing answers at {flag}={endpoint}: {error.strerror or error}. Is it "
            "running, and can this machine reach it?"
        ) from error


def _speaking(endpoint: str, flag: str) -> None:
    """Refuses an address where somebody listens who is no server of gRPC."""
    with grpc.insecure_channel(endpoint) as channel:
        try:
            grpc.channel_ready_future(channel).result(_SECONDS)
        except grpc.FutureTimeoutError as error:
            raise RunError(
                f"something listens at {flag}={endpoint}, but is no job service of "
                f"Beam, or too busy: no answer in {_SECONDS:g} s. Is it the right port?"
            ) from error


def check_workers(options: Options, runner: str) -> None:
    """Refuses a job that does not say where its workers run."""
    if not options.get("environment_type"):
        raise UsageError(
            f"--runner={runner} needs to know where workers run, after `--`: "
            "--environment_type=LOOPBACK where the cluster is on this machine, "
            "EXTERNAL with --environment_config=HOST:PORT of a worker pool, or DOCKER"
        )


def check_pool(options: Options, host: str | None) -> None:
    """Refuses a pool of workers that is not there.

    Args:
        options: of Beam, by name.
        host: of the cluster; where that is this machine, the pool is here, too.
    """
    kind, pool = options["environment_type"], options.get("environment_config")
    if kind == "EXTERNAL" and pool and host in _HERE:
        listening(pool, "--environment_config")


def check_jar(jar: Path, wanted: str) -> None:
    """Refuses a job server that is no jar.

    Args:
        jar: the user's own.
        wanted: its name in Maven Central.
    """
    if not zipfile.is_zipfile(jar):
        raise RunError(
            f"{jar} is {'no jar' if jar.exists() else 'not there'}. Beam's job server "
            f"is the file {wanted} of Maven Central."
        )


def check_java(options: Options) -> None:
    """Refuses a machine without the Java that runs the job server."""
    java = options["job_server_java_launcher"]
    if not shutil.which(java):
        raise RunError(
            f"there is no `{java}` here, which runs Beam's job server: install Java, "
            "or name one by --job_server_java_launcher=PATH."
        )


def _check_service(options: Options) -> None:
    if not options.get("job_endpoint"):
        raise UsageError(
            "--runner=PortableRunner needs the address of a job service: "
            "-- --job_endpoint=HOST:PORT"
        )


def _check_prism(options: Options) -> None:
    path = options.get("prism_location")
    if options.get("job_endpoint"):
        return
    if not path:
        raise UsageError(
            "--runner=PrismRunner needs the path of the prism binary: "
            "-- --prism_location=PATH; `make prism` builds it with Go"
        )
    if not os.access(path, os.X_OK):
        raise RunError(
            f"there is no program at --prism_location={path}; `make prism` builds it "
            "with Go"
        )


PORTABLE = Engine(check_options=_check_service)
PRISM = Engine(
    defaults=lambda workers: ("--prism_log_level=error",), check_options=_check_prism
)
