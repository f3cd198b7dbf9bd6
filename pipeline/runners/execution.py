"""Beam's options and runners: runs a job here, or hands it to another runner."""

import contextlib
import logging
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

logging.basicConfig(level=logging.ERROR)  # Beam warns of every extra that is not there

import apache_beam as beam  # noqa: E402
from apache_beam.options.pipeline_options import (  # noqa: E402
    DirectOptions,
    PipelineOptions,
    StandardOptions,
)
from apache_beam.runners.portability import portable_runner  # noqa: E402
from apache_beam.runners.portability.fn_api_runner import fn_runner  # noqa: E402
from apache_beam.runners.runner import (  # noqa: E402
    PipelineResult,
    PipelineRunner,
    create_runner,
)
from apache_beam.runners.worker import sdk_worker  # noqa: E402

from pipeline import beam_job  # noqa: E402
from pipeline.beam_job import Job  # noqa: E402
from pipeline.runners.dataflow import DATAFLOW  # noqa: E402
from pipeline.runners.engine import PORTABLE, PRISM, Engine  # noqa: E402
from pipeline.runners.flink import FLINK  # noqa: E402
from pipeline.runners.spark import SPARK  # noqa: E402
from pipeline.storage.object_paths import AnyPath  # noqa: E402
from pipeline.system.errors import UsageError  # noqa: E402

_MODE = "multi_threading"  # of the local runner, whose threads only wait
_FOR_EVER = 10**8  # seconds
RUNNERS = {
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
    "dataflow": "DataflowRunner",
    "dask": "apache_beam.runners.dask.dask_runner.DaskRunner",
}
_ENGINES = {
    "FlinkRunner": FLINK,
    "SparkRunner": SPARK,
    "DataflowRunner": DATAFLOW,
    "PortableRunner": PORTABLE,
    "PrismRunner": PRISM,
}


def run_here(job: Job, options: PipelineOptions) -> None:
    """Runs a job on this machine.

    Raises:
        RuntimeError: a step failed; FnApiRunner makes this of any exception, once all
            of its threads are done.
    """
    # Beam 2.77 prints the traceback of an error to stderr, beside logging it.
    setattr(sdk_worker, "print", lambda *_, **__: None)  # noqa: B010 (it has none)
    # Not DirectRunner, which first tries to download Prism.
    with beam.Pipeline(runner=fn_runner.FnApiRunner(), options=options) as pipeline:
        beam_job.build(pipeline, job)


@contextlib.contextmanager
def runner_there(options: PipelineOptions) -> Iterator[PipelineRunner]:
    """Yields the runner of `engine_options`, and ends the job server that it starts.

    Beam ends it when Python exits, which console.leave skips; and at Ctrl-C, before
    the job can be cancelled.
    """
    runner = create_runner(options.view_as(StandardOptions).runner)
    with contextlib.ExitStack() as servers:
        if isinstance(runner, portable_runner.PortableRunner):
            start = runner.default_job_server

            def start_kept(options: PipelineOptions) -> Any:
                server = start(options)
                servers.callback(server.stop)
                return server

            runner.default_job_server = start_kept
        yield runner


def run_there(
    job: Job, options: PipelineOptions, runner: PipelineRunner
) -> PipelineResult:
    """Hands a job to a runner, which may be done with it then.

    Args:
        job: what is to be done.
        options: of `engine_options`.
        runner: of `runner_there`.

    Raises:
        Exception: what the runner raises, where it cannot take the job.
    """
    pipeline = beam.Pipeline(runner=runner, options=options)
    beam_job.build(pipeline, job)
    _engine(type(runner).__name__).prepare(pipeline)
    interrupted = signal.getsignal(signal.SIGINT)
    try:
        return pipeline.run()
    finally:
        signal.signal(signal.SIGINT, interrupted)  # Beam's ends the job server


def run_empty(options: PipelineOptions) -> None:
    """What every job costs: starts the workers, gives them nothing to do, ends them."""
    with beam.Pipeline(runner=fn_runner.FnApiRunner(), options=options) as pipeline:
        _ = (
            pipeline
            | "Numbers" >> beam.Create(range(16))
            | "Spread" >> beam.Reshuffle()
            | "Nothing" >> beam.Map(str)
        )


def beam_options(arguments: Sequence[str], workers: int) -> PipelineOptions:
    """Beam's options for the local runner, with ours as defaults.

    Raises:
        UsageError: Beam does not know one of them, and would drop it in silence; or
            another mode is asked for.
    """
    options = _options(
        arguments,
        f"--direct_num_workers={workers}",
        f"--direct_running_mode={_MODE}",
    )
    mode = options.view_as(DirectOptions).direct_running_mode
    if mode != _MODE:
        raise UsageError(
            f"--direct_running_mode={mode}: on this machine it is {_MODE}, and "
            "--workers child processes decode"
        )
    return options


def engine_options(
    runner: str,
    arguments: Sequence[str],
    workers: int,
    folders: Mapping[str, Sequence[AnyPath]],
) -> PipelineOptions:
    """Beam's options for one of its runners, with ours as defaults.

    Args:
        runner: `flink`, `spark`, `dataflow`, or the name of any runner of Beam.
        arguments: options for Beam.
        workers: that the user wants, where the runner can be told.
        folders: that the workers have to reach, by flag.

    Raises:
        UsageError: Beam does not know the runner, or an option, or needs another.
        RunError: the runner is not there.
    """
    chosen, name = engine(runner), RUNNERS.get(runner, runner)
    options = _options(
        arguments,
        f"--runner={name}",
        f"--job_server_timeout={_FOR_EVER}",  # after it Beam would end the job
        *chosen.defaults(workers),
        handed_on=chosen.server_options,
    )
    chosen.check_folders(folders)
    chosen.check(options.get_all_options())
    return options


def engine(runner: str) -> Engine:
    """Returns what is known of a runner.

    Args:
        runner: one of RUNNERS, or the name of any runner of Beam.

    Raises:
        UsageError: Beam does not know it, or needs a library that is not installed.
    """
    try:
        kind = type(create_runner(RUNNERS.get(runner, runner))).__name__
    except (RuntimeError, ValueError, ImportError) as error:
        raise UsageError(f"--runner={runner}: {error}") from error
    return _engine(kind)


def _engine(kind: str) -> Engine:
    """Returns what is known of the runner of a class."""
    if kind == "DaskRunner":
        from pipeline.runners.dask import DASK  # here: an extra of its own

        return DASK
    return _ENGINES.get(kind, Engine())


def _options(
    arguments: Sequence[str],
    *defaults: str,
    handed_on: frozenset[str] = frozenset(),
) -> PipelineOptions:
    if any(word.partition("=")[0] == "--runner" for word in arguments):
        raise UsageError("--runner goes before `--`: it is not left to Beam alone")
    options = PipelineOptions(
        ["--default_sdk_harness_log_level=ERROR", *defaults, *arguments]
    )
    known = options.get_all_options()
    there = options.get_all_options(retain_unknown_options=True).keys()
    unknown = there - known - handed_on
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
