"""Apache Flink: a cluster of the job server's version, with room for the job."""

import contextlib
import importlib.metadata
import json
import re
import urllib.request
import uuid
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.runners.engine import (
    Engine,
    Options,
    check_jar,
    check_java,
    check_pool,
    check_workers,
)
from pipeline.system.errors import RunError

_SECONDS = 5
_WITHIN = ("[auto]", "[local]")  # the job server is Flink itself
_BEAM = importlib.metadata.version("apache-beam")  # without the seconds of its import
_JAR = re.compile(r"beam-runners-flink-(?P<flink>[\d.]+)-job-server-(?P<beam>.+)\.jar")


def _defaults(workers: int) -> tuple[str, ...]:
    return (
        "--flink_master=localhost:8081",
        "--environment_type=LOOPBACK",
        f"--parallelism={workers}",
        f"--job_name=vgg16-{uuid.uuid4().hex}",  # for _cancel
    )


def _check(options: Options) -> None:
    """Refuses a cluster, workers or a job server that are not there, or too small.

    Not where a job service takes care of all that, nor where the job server is to be
    Flink itself.
    """
    master, version = options["flink_master"], options["flink_version"]
    if options.get("job_endpoint") or master in _WITHIN:
        return
    check_workers(options, "flink")
    if jar := options.get("flink_job_server_jar"):
        check_jar(Path(jar), _wanted(version))
        _check_versions(Path(jar), version)
    _check_cluster(master, version, options["parallelism"])
    check_pool(options, urlsplit(f"//{master.rpartition('//')[2]}").hostname)
    if not options.get("flink_submit_uber_jar"):
        check_java(options)


def _check_versions(jar: Path, flink: str) -> None:
    """Refuses a job server that has other versions in its name."""
    made_for = _JAR.fullmatch(jar.name)
    if made_for and (made_for["flink"], made_for["beam"]) != (flink, _BEAM):
        raise RunError(
            f"{jar} was made for Flink {made_for['flink']} and Beam "
            f"{made_for['beam']}; here are Flink {flink} and Beam {_BEAM}. Take "
            f"{_wanted(flink)}."
        )


def _wanted(flink: str) -> str:
    return f"beam-runners-flink-{flink}-job-server-{_BEAM}.jar"


def _check_cluster(address: str, version: str, parallelism: int) -> None:
    """Refuses a cluster of another version, or of too few slots.

    Flink would wait a minute or five for more slots.

    Args:
        address: of the REST API, `host:port`, with or without http://.
        version: the Flink that the job server was made for, such as 2.2.
        parallelism: task slots that the job wants.
    """
    found = _get(address, "config")["flink-version"]
    if found != version and not found.startswith(f"{version}."):
        raise RunError(
            f"the cluster at {address} runs Flink {found}, and the job server was made "
            f"for {version}; they must agree. Take --flink_version and the jar "
            f"beam-runners-flink-{'.'.join(found.split('.')[:2])}-job-server by "
            "--flink_job_server_jar, or a cluster of that version."
        )
    managers = _get(address, "taskmanagers")["taskmanagers"]
    slots = sum(manager["slotsNumber"] for manager in managers)
    if not slots:
        raise RunError(
            f"the cluster at {address} has no task slot: no task manager runs, or "
            "none has found it. Start one: `bin/taskmanager.sh start` of Flink."
        )
    if slots < parallelism:
        raise RunError(
            f"the cluster at {address} has {slots} task slots, and the job wants "
            f"{parallelism}. Take --parallelism={slots} or less, or more task managers."
        )


def _cancel(options: Options) -> None:
    """Cancels the job on the cluster, where Beam's job server lets it go on."""
    master = options["flink_master"]
    if options.get("job_endpoint") or master in _WITHIN:
        return
    with contextlib.suppress(RunError):  # the cluster has gone, and the job with it
        for job in _get(master, "jobs/overview")["jobs"]:
            if job["name"] == options["job_name"] and job["end-time"] < 0:
                _get(master, f"jobs/{job['jid']}?mode=cancel", method="PATCH")


def _get(address: str, path: str, method: str = "GET") -> Any:
    """Returns what the REST API answers."""
    url = f"{address if '://' in address else f'http://{address}'}/{path}"
    try:
        request = urllib.request.Request(url, method=method)
        with urllib.request.urlopen(request, timeout=_SECONDS) as reply:
            return json.load(reply)
    except (OSError, HTTPException, ValueError) as error:
        why = str(error).strip("<>")
        raise RunError(
            f"no Flink cluster answers at {address}: {why}. --flink_master=HOST:PORT "
            "names one; `make cluster-up ENGINE=flink` starts one on this machine."
        ) from error


FLINK = Engine(
    defaults=_defaults,
    check_options=_check,
    cancel=_cancel,
    patience=300,  # the job server starts, and the cluster may be busy
    server_options=frozenset(
        {
            "execution_mode_for_batch",  # BATCH_FORCED goes on with fewer slots
            "execution_retry_delay",
            "number_of_execution_retries",
            "use_data_stream_for_batch",
        }
    ),
)
