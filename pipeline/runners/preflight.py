"""Whether a runner of Beam is there, before a job is handed to it.

Beam would wait for ever for an endpoint where nobody is, download what is not
installed, or ask for what was not said.
"""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc

from pipeline.flink_cluster import distribution
from pipeline.runners import dataflow, flink_rest
from pipeline.storage.object_paths import AnyPath
from pipeline.system.errors import RunError, UsageError

_SECONDS = 5.0
_FLINK_WITHIN = ("[auto]", "[local]")
_HERE = ("localhost", "127.0.0.1")

Options = Mapping[str, Any]


def check_folders(runner: str, folders: Mapping[str, Sequence[AnyPath]]) -> None:
    """Refuses folders that the workers of a runner cannot reach.

    Args:
        runner: the name of its class.
        folders: by flag.

    Raises:
        UsageError: there are some.
    """
    if runner == "DataflowRunner":
        dataflow.refuse_local(**folders)


def check(runner: str, options: Options) -> None:
    """Refuses a runner that is not ready.

    Args:
        runner: the name of its class.
        options: of Beam, by name.

    Raises:
        UsageError: an option is missing.
        RunError: what an option names is not there.
    """
    if endpoint := options.get("job_endpoint"):
        _listening(endpoint, "--job_endpoint")
        _speaking(endpoint, "--job_endpoint")
    _CHECKS.get(runner, lambda _: None)(options)


def _flink(options: Options) -> None:
    """A cluster of that version with room for the job, its workers, the job server.

    Not where a job service takes care of all that, nor where the job server is to be
    Flink itself.
    """
    master, version = options["flink_master"], options["flink_version"]
    if options.get("job_endpoint") or master in _FLINK_WITHIN:
        return
    if not options.get("environment_type"):
        raise UsageError(
            "--runner=flink needs to know where workers run, after `--`: "
            "--environment_type=LOOPBACK where Flink is on this machine, EXTERNAL with "
            "--environment_config=HOST:PORT of a worker pool, or DOCKER"
        )
    if jar := options.get("flink_job_server_jar"):
        distribution.own_job_server(Path(jar), flink=version)
    flink_rest.check(master, version=version, parallelism=options["parallelism"])
    pool = options.get("environment_config")
    here = urlsplit(f"//{master.rpartition('//')[2]}").hostname in _HERE
    if options["environment_type"] == "EXTERNAL" and pool and here:
        _listening(pool, "--environment_config")


def _portable(options: Options) -> None:
    if not options.get("job_endpoint"):
        raise UsageError(
            "--runner=PortableRunner needs the address of a job service: "
            "-- --job_endpoint=HOST:PORT"
        )


def _prism(options: Options) -> None:
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


def _listening(endpoint: str, flag: str) -> None:
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


def _dask(options: Options) -> None:
    from pipeline.runners import dask  # here: an extra of its own

    dask.check(options)


_CHECKS: dict[str, Callable[[Options], None]] = {
    "FlinkRunner": _flink,
    "PortableRunner": _portable,
    "PrismRunner": _prism,
    "DaskRunner": _dask,
    "DataflowRunner": dataflow.check,
}
