"""Runners that are Beam's own: a job service that somebody started, and Prism."""

import os

from pipeline.runners.engine import Engine, Options
from pipeline.system.errors import RunError, UsageError


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
