"""Apache Flink: a cluster of that version with room for the job."""

from pathlib import Path
from urllib.parse import urlsplit

from pipeline.flink_cluster import distribution
from pipeline.runners import flink_rest
from pipeline.runners.engine import Engine, Options, listening
from pipeline.system.errors import UsageError

_WITHIN = ("[auto]", "[local]")  # the job server is Flink itself
_HERE = ("localhost", "127.0.0.1")


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
        distribution.own_job_server(Path(jar), flink=version)
    flink_rest.check(master, version=version, parallelism=options["parallelism"])
    pool = options.get("environment_config")
    here = urlsplit(f"//{master.rpartition('//')[2]}").hostname in _HERE
    if options["environment_type"] == "EXTERNAL" and pool and here:
        listening(pool, "--environment_config")


FLINK = Engine(
    defaults=_defaults,
    check_options=_check,
    server_options=frozenset({"execution_mode_for_batch"}),  # goes on with fewer slots
)
