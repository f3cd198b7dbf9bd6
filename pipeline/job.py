"""The Beam job: one element is one shard. Only this module imports Beam."""

import logging
import shlex
import sys
from collections.abc import Sequence

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
from apache_beam.transforms.environments import (  # noqa: E402
    SubprocessSDKEnvironment,
)

from pipeline.console import UsageError  # noqa: E402
from pipeline.manifest import ImageContract  # noqa: E402
from pipeline.objects import AnyPath  # noqa: E402

_WORKER = "apache_beam.runners.worker.sdk_worker_main"


def write_shards(
    names: Sequence[str],
    dataset: AnyPath,
    contract: ImageContract,
    options: PipelineOptions,
) -> None:
    """Writes the named shards of a planned dataset; returns when all are committed.

    Raises:
        RuntimeError: a worker failed; FnApiRunner makes this of any exception.
    """
    from pipeline import shard  # here: an empty job imports no decoder

    with beam.Pipeline(runner=_local_runner(options), options=options) as pipeline:
        _ = (
            pipeline
            | "Shards" >> beam.Create(names)  # str, a few bytes each
            | "Spread" >> beam.Reshuffle()  # else one worker gets them all
            | "Write" >> beam.Map(shard.write, folder=str(dataset), contract=contract)
        )


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
    options = PipelineOptions(
        [
            f"--direct_num_workers={workers}",
            "--direct_running_mode=multi_processing",
            "--default_sdk_harness_log_level=ERROR",
            *arguments,
        ]
    )
    known = options.get_all_options()
    unknown = options.get_all_options(retain_unknown_options=True).keys() - known
    if unknown:
        names = ", ".join(f"--{name}" for name in sorted(unknown))
        raise UsageError(f"Beam {beam.__version__} knows no option {names}")
    return options


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
