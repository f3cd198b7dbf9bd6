"""Beam's options and runners: runs a job here, or hands it to another runner."""

import logging
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence

logging.basicConfig(level=logging.ERROR)  # Beam warns of every extra that is not there

import apache_beam as beam  # noqa: E402
from apache_beam.options.pipeline_options import (  # noqa: E402
    DirectOptions,
    PipelineOptions,
)
from apache_beam.portability.api import beam_provision_api_pb2  # noqa: E402
from apache_beam.runners.portability.fn_api_runner import fn_runner  # noqa: E402
from apache_beam.runners.portability.portable_runner import (  # noqa: E402
    JobServiceHandle,
)
from apache_beam.runners.runner import (  # noqa: E402
    PipelineResult,
    create_runner,
)
from apache_beam.transforms.environments import (  # noqa: E402
    SubprocessSDKEnvironment,
)

from pipeline import beam_job  # noqa: E402
from pipeline.beam_job import Job  # noqa: E402
from pipeline.runners import dataflow, preflight  # noqa: E402
from pipeline.storage.object_paths import AnyPath  # noqa: E402
from pipeline.system.errors import UsageError  # noqa: E402

_WORKER = "apache_beam.runners.worker.sdk_worker_main"
_FOR_EVER = 10**8  # seconds
RUNNERS = {
    "flink": "FlinkRunner",
    "dataflow": "DataflowRunner",
    "dask": "apache_beam.runners.dask.dask_runner.DaskRunner",
}
_DEFAULTS: dict[str, Callable[[int], Sequence[str]]] = {
    "FlinkRunner": lambda workers: (
        "--flink_master=localhost:8081",
        "--environment_type=LOOPBACK",
        f"--parallelism={workers}",
    ),
    "PrismRunner": lambda _: ("--prism_log_level=error",),
    "DataflowRunner": lambda _: dataflow.DEFAULTS,
}


def run_here(work: Job, options: PipelineOptions) -> None:
    """Runs a job on this machine.

    Raises:
        RuntimeError: a worker failed; FnApiRunner makes this of any exception.
    """
    with beam.Pipeline(runner=_local_runner(options), options=options) as pipeline:
        beam_job.build(pipeline, work)


def run_there(work: Job, options: PipelineOptions) -> PipelineResult:
    """Hands a job to the runner of `engine_options`, which may be done with it then.

    Raises:
        Exception: what the runner raises, where it cannot take the job.
    """
    pipeline = beam.Pipeline(options=options)
    beam_job.build(pipeline, work)
    if type(pipeline.runner).__name__ == "DaskRunner":
        from pipeline.runners import dask  # here: an extra of its own

        dask.prepare(pipeline)
    return pipeline.run()


def run_empty(options: PipelineOptions) -> None:
    """What every job costs: starts the workers, gives them nothing to do, ends them."""
    with beam.Pipeline(runner=_local_runner(options), options=options) as pipeline:
        _ = (
            pipeline
            | "Numbers" >> beam.Create(range(16))
            | "Spread" >> beam.Reshuffle()
            | "Nothing" >> beam.Map(str)
        )


def beam_options(arguments: Sequence[str], workers: int) -> PipelineOptions:
    """Beam's options for the local runner, with ours as defaults.

    Raises:
        UsageError: Beam does not know one of them; it would drop it in silence.
    """
    return _options(
        arguments,
        f"--direct_num_workers={workers}",
        "--direct_running_mode=multi_processing",
    )


def engine_options(
    runner: str,
    arguments: Sequence[str],
    workers: int,
    folders: Mapping[str, Sequence[AnyPath]],
) -> PipelineOptions:
    """Beam's options for one of its runners, with ours as defaults.

    Args:
        runner: `flink`, `dataflow`, or the name of any runner of Beam.
        arguments: options for Beam.
        workers: that the user wants, where the runner can be told.
        folders: that the workers have to reach, by flag.

    Raises:
        UsageError: Beam does not know the runner, or an option, or needs another.
        RunError: the runner is not there.
    """
    name = RUNNERS.get(runner, runner)
    try:
        kind = type(create_runner(name)).__name__
    except (RuntimeError, ValueError, ImportError) as error:
        raise UsageError(f"--runner={runner}: {error}") from error
    options = _options(
        arguments,
        f"--runner={name}",
        f"--job_server_timeout={_FOR_EVER}",  # after it Beam would end the job
        *_DEFAULTS.get(kind, lambda _: ())(workers),
    )
    preflight.check_folders(kind, folders)
    preflight.check(kind, options.get_all_options())
    return options


def _options(arguments: Sequence[str], *defaults: str) -> PipelineOptions:
    if any(word.partition("=")[0] == "--runner" for word in arguments):
        raise UsageError("--runner goes before `--`: it is not left to Beam alone")
    options = PipelineOptions(
        ["--default_sdk_harness_log_level=ERROR", *defaults, *arguments]
    )
    known = options.get_all_options()
    unknown = options.get_all_options(retain_unknown_options=True).keys() - known
    if unknown:
        names = ", ".join(f"--{name}" for name in sorted(unknown))
        raise UsageError(f"Beam {beam.__version__} knows no option {names}")
    return options


def only_builds(options: PipelineOptions) -> str:
    """What becomes of a job that is not run: words, or "" where it is."""
    given = options.get_all_options()
    if template := given.get("template_location"):
        return f"the template {template}; `gcloud dataflow jobs run` runs it"
    return "a dry run" if given.get("dry_run") else ""


def in_memory(options: PipelineOptions) -> bool:
    """Whether the job runs in this process, without workers."""
    return options.view_as(DirectOptions).direct_running_mode == "in_memory"


def _local_runner(options: PipelineOptions) -> fn_runner.FnApiRunner:
    """The runner that DirectRunner ends up with, less its attempt to download Prism.

    Its worker processes learn the options from the provision info. Their command is
    FnApiRunner's own for `multi_processing`, but quoted for the shell that runs it.
    """
    direct = options.view_as(DirectOptions)
    environment = None
    if direct.direct_running_mode == "multi_processing":
        direct.direct_running_mode = "in_memory"  # else it would set its own command
        environment = SubprocessSDKEnvironment.from_command_string(
            f"exec {shlex.quote(sys.executable)} -m {_WORKER}"
        )
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    info = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return fn_runner.FnApiRunner(
        default_environment=environment,
        provision_info=fn_runner.ExtendedProvisionInfo(info),
    )
