"""Apache Flink: a cluster of that version with room for the job."""

import importlib.metadata
import re
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.runners import flink_rest
from pipeline.runners.engine import Engine, Options, listening
from pipeline.system.errors import RunError, UsageError

_WITHIN = ("[auto]", "[local]")  # the job server is Flink itself
_HERE = ("localhost", "127.0.0.1")
BEAM = importlib.metadata.version("apache-beam")  # without the seconds of its import
_JAR = re.compile(r"beam-runners-flink-(?P<flink>[\d.]+)-job-server-(?P<beam>.+)\.jar")


def _defaults(workers: int) -> tuple[str, ...]:
    return (
        "--flink_master=localhost:8081",
        "--environment_type=LOOPBACK",
        f"--parallelism={workers}",
    )


def _check(options: Options) -> None:
    """Refuses a cluster, workers or a job server that are not there, or too small.

    Not where a job service takes care of all that, nor where the job server is to be
    Flink itself.
    """
    master, version = options["flink_master"], options["flink_version"]
    if options.get("job_endpoint") or master in _WITHIN:
        return
    if not options.get("environment_type"):
        raise UsageError(
            "--runner=flink needs to know where workers run, after `--`: "
            "--environment_type=LOOPBACK where Flink is on this machine, EXTERNAL with "
            "--environment_config=HOST:PORT of a worker pool, or DOCKER"
        )
    if jar := options.get("flink_job_server_jar"):
        own_job_server(Path(jar), flink=version)
    flink_rest.check(master, version=version, parallelism=options["parallelism"])
    pool = options.get("environment_config")
    here = urlsplit(f"//{master.rpartition('//')[2]}").hostname in _HERE
    if options["environment_type"] == "EXTERNAL" and pool and here:
        listening(pool, "--environment_config")


def own_job_server(jar: Path, *, flink: str) -> Path:
    """A jar that the user has, held to the versions in its name, if it has any.

    Args:
        jar: Beam's job server.
        flink: that it must be made for, such as 2.2.

    Raises:
        RunError: it is not there, or was made for other versions.
    """
    wanted = f"beam-runners-flink-{flink}-job-server-{BEAM}.jar"
    if not zipfile.is_zipfile(jar):
        raise RunError(
            f"{jar} is {'no jar' if jar.exists() else 'not there'}. Beam's job server "
            f"is the file {wanted} of Maven Central; `make flink-up` fetches it."
        )
    made_for = _JAR.fullmatch(jar.name)
    if made_for and (made_for["flink"], made_for["beam"]) != (flink, BEAM):
        raise RunError(
            f"{jar} was made for Flink {made_for['flink']} and Beam "
            f"{made_for['beam']}; here are Flink {flink} and Beam {BEAM}. Take "
            f"{wanted}."
        )
    return jar


FLINK = Engine(
    defaults=_defaults,
    check_options=_check,
    server_options=frozenset({"execution_mode_for_batch"}),  # goes on with fewer slots
)
