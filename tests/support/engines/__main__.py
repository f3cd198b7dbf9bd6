"""A real engine on this machine, to try `--runner` with.

    python -m tests.support.engines up|down --engine=dask|flink|spark

Its processes listen on 127.0.0.1 alone. Logs and scratch files lie in --folder. `up`
starts what does not run yet; `down` ends what `up` has started, and nothing else.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.system.console import DONE, FAILED
from pipeline.system.errors import RunError
from tests.support.engines.cluster import Cluster
from tests.support.engines.dask import Dask
from tests.support.engines.flink import Flink
from tests.support.engines.spark import Spark

ENGINES: dict[str, type[Cluster]] = {
    engine.engine: engine for engine in (Dask, Flink, Spark)
}


def main(words: Sequence[str]) -> int:
    """Runs a command line and returns the exit code; 2 is argparse's."""
    options = _parser().parse_args(words)
    folder = options.folder.expanduser() / options.engine
    cluster = ENGINES[options.engine](folder)
    try:
        if options.verb == "down":
            ended = cluster.down()
            print(f"ended: {', '.join(ended)}" if ended else "nothing runs")
        else:
            started = cluster.up()
            print(f"{started} processes started; {folder} has their logs")
            beam = " ".join(cluster.options())
            words = f'ARGS=--runner={options.engine} BEAM="{beam}"'
            print(f"make shards IMAGES=… DATASET=… {words}")
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m tests.support.engines", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("verb", choices=["up", "down"])
    parser.add_argument("--engine", choices=sorted(ENGINES), required=True)
    parser.add_argument("--folder", type=Path, default=Path(".clusters"))
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
