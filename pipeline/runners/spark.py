"""Apache Spark: a standalone cluster of the job server's version, with workers."""

import json
import re
import urllib.request
import zipfile
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.runners.engine import (
    Engine,
    Options,
    check_jar,
    check_java,
    check_pool,
    check_workers,
    listening,
)
from pipeline.system.errors import RunError

_SECONDS = 5
_SCHEME = "spark://"
_PARTITIONS = 8  # for every worker, so that all end about together
_CACHE_MILLIS = 3_600_000  # else every task starts a worker, for seconds, and ends it
_JAR = "beam-runners-spark-3-job-server-VERSION.jar"
_VERSION = re.compile(r'class="version"[^>]*>\s*([\d.]+)')


class _SparkPage(PipelineOptions):
    """An option of ours: Spark's own protocol tells no version, and no workers."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument("--spark_page", help="The master's web page: http://….")


def _defaults(workers: int) -> tuple[str, ...]:
    return (
        "--spark_master_url=spark://localhost:7077",
        "--environment_type=LOOPBACK",
        f"--environment_cache_millis={_CACHE_MILLIS}",
        "--job_server_jvm_properties="
        f"-Dspark.default.parallelism={_PARTITIONS * workers}",
    )


def _check(options: Options) -> None:
    """Refuses a cluster, workers or a job server that are not there, or do not agree.

    Not where a job service takes care of all that, where the job server is to be
    Spark itself, nor where there are several masters, some of which may be down.
    """
    master = options["spark_master_url"]
    standalone = master.startswith(_SCHEME) and "," not in master
    if options.get("job_endpoint") or not standalone:
        return
    check_workers(options, "spark")
    jar = options.get("spark_job_server_jar")
    if jar:
        check_jar(Path(jar), _JAR)
    address = urlsplit(master)
    listening(address.netloc, "--spark_master_url")
    _check_cluster(master, options.get("spark_page"), Path(jar) if jar else None)
    check_pool(options, address.hostname)
    if not options.get("spark_submit_uber_jar"):
        check_java(options)


def _check_cluster(master: str, page: str | None, jar: Path | None) -> None:
    """Refuses a master without workers, or of another version than the job server's.

    Its page tells both. Where no page is named, the port that it has by default is
    tried, and another master's page, or none, is no reason to refuse.

    Args:
        master: `spark://host:port`.
        page: its URL, `http://host:port`.
        jar: the job server.
    """
    url = page or f"http://{urlsplit(master).hostname}:8080"
    try:
        state = json.loads(_get(f"{url}/json/"))
        found = _VERSION.search(_get(url))
        there = urlsplit(state["url"]).port == urlsplit(master).port
        workers, cores = state["aliveworkers"], state["cores"]
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        if page is None:
            return
        raise RunError(
            f"no page of a Spark master is at --spark_page={page}: {error}."
        ) from error
    if not there:
        if page is None:
            return
        raise RunError(f"--spark_page={page} is of the master {state['url']}.")
    if not workers or not cores:
        raise RunError(
            f"the master at --spark_master_url={master} has no worker. Start one: "
            f"`sbin/start-worker.sh {master}` of Spark."
        )
    made_for = _spark_of(jar) if jar else ""
    if found and made_for and _minor(found[1]) != _minor(made_for):
        raise RunError(
            f"the master at --spark_master_url={master} runs Spark {found[1]}, and "
            f"the job server {jar} was made for {made_for}; they must agree. Take "
            "another --spark_job_server_jar, or a cluster of that version."
        )


def _spark_of(jar: Path) -> str:
    """Returns the version of Spark that is in a job server; "" where none is."""
    with zipfile.ZipFile(jar) as archive:
        try:
            said = archive.read("spark-version-info.properties").decode()
        except KeyError:
            return ""
    found = re.search(r"^version=(.+)$", said, re.MULTILINE)
    return found[1].strip() if found else ""


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=_SECONDS) as reply:
        return str(reply.read().decode())


SPARK = Engine(
    defaults=_defaults,
    check_options=_check,
    patience=300,  # executors start, and copy the job server's 300 MB
    server_options=frozenset({"bundle_size", "storage_level", "cache_disabled"}),
)
