"""What a Flink cluster says of itself, by its REST API."""

import json
import urllib.request
from typing import Any

from pipeline.system.errors import RunError

_SECONDS = 5


def check(address: str, *, version: str, parallelism: int = 1) -> None:
    """Whether jobs can be sent to a cluster, before anything is sent.

    Args:
        address: `host:port`, with or without http://.
        version: the Flink that the job server was made for, such as 2.2.
        parallelism: task slots that the job wants.

    Raises:
        RunError: nothing answers there, it is another Flink, or it has too few slots:
            Flink would wait a minute or five for more.
    """
    found = config(address)["flink-version"]
    if found != version and not found.startswith(f"{version}."):
        raise RunError(
            f"the cluster at {address} runs Flink {found}, and the job server was made "
            f"for {version}; they must agree. Take --flink_version and the jar "
            f"beam-runners-flink-{'.'.join(found.split('.')[:2])}-job-server by "
            "--flink_job_server_jar, or a cluster of that version."
        )
    there = slots(address)
    if not there:
        raise RunError(
            f"the cluster at {address} has no task slot: no task manager runs, or "
            "none has found it. `make flink-up` starts what is missing."
        )
    if there < parallelism:
        raise RunError(
            f"the cluster at {address} has {there} task slots, and the job wants "
            f"{parallelism}. Take --parallelism={there} or less, or more task managers."
        )


def config(address: str) -> dict[str, Any]:
    """The version and the like."""
    return dict(_get(address, "config"))


def slots(address: str, *, since: float = 0) -> int:
    """How many task slots are registered, busy or free.

    Args:
        address: as in `check`.
        since: counts task managers that were heard from since then, in seconds of
            the epoch: one that was killed stays registered for seconds.
    """
    managers = _get(address, "taskmanagers")["taskmanagers"]
    return sum(
        manager["slotsNumber"]
        for manager in managers
        if manager["timeSinceLastHeartbeat"] >= since * 1000  # it is a time, in ms
    )


def jobs(address: str) -> dict[str, str]:
    """The state of every job that the cluster remembers, by name and id, oldest first.

    Of a job that has ended it is FINISHED, FAILED or CANCELED.
    """
    found = sorted(_get(address, "jobs/overview")["jobs"], key=_start)
    return {f"{job['name']} {job['jid']}": job["state"] for job in found}


def task_managers(address: str) -> dict[str, int]:
    """The slots of every task manager that is registered, by its id."""
    found = _get(address, "taskmanagers")["taskmanagers"]
    return {manager["id"]: manager["slotsNumber"] for manager in found}


def _start(job: dict[str, Any]) -> int:
    return int(job["start-time"])


def _get(address: str, path: str) -> Any:
    url = f"{address if '://' in address else f'http://{address}'}/{path}"
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as reply:
            return json.load(reply)
    except (OSError, ValueError) as error:
        why = str(error).strip("<>")
        raise RunError(
            f"no Flink cluster answers at {address}: {why}. `make flink-up` starts "
            "one on this machine; --flink_master=HOST:PORT names another."
        ) from error
