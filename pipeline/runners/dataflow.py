"""Google Cloud Dataflow: what a job asks of it, and whether it can be asked at all.

Beam alone tries for minutes with a key that is of no use, makes a bucket where none was
named, and sends the main module of the launcher, with its flags, to the workers.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.runners.engine import Engine, Options
from pipeline.storage.object_paths import AnyPath
from pipeline.system.errors import RunError, UsageError

_SETUP = Path(__file__).parents[2] / "setup.py"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_SECONDS = 10.0  # until somebody has to answer

_DEFAULTS = (
    f"--setup_file={_SETUP}",  # this very code is what the workers run
    "--no_save_main_session",
    "--experiments=disable_logging_submission_environment",  # asks for a pip
    "--machine_type=n2d-standard-4",  # a decoder on every core, 300 MB each
    "--number_of_worker_harness_threads=1",  # of every core's process
    "--disk_size_gb=50",  # the container, and a shard of each process at a time
    "--max_num_workers=16",
)


def _check(options: Options) -> None:
    """Refuses what Dataflow would refuse later, or never answer.

    Args:
        options: of Beam, by name.

    Raises:
        UsageError: an option is missing, or no place of Cloud Storage.
        RunError: no credentials, or no bucket.
    """
    _refuse_missing(options)
    for name in ("temp_location", "staging_location", "template_location"):
        place = options.get(name)
        if place and not re.fullmatch("gs://[^/]+/.+", place):
            raise UsageError(f"--{name}={place} is no gs://BUCKET/FOLDER")
    if not Path(options.get("setup_file") or "").is_file():
        raise UsageError(
            f"there is no --setup_file={options.get('setup_file')}: the workers' "
            "package is made by the setup.py of the repository. Run from a clone of it"
        )
    if not options.get("dry_run"):
        _see_bucket(options)


def _refuse_local(folders: Mapping[str, Sequence[AnyPath]]) -> None:
    """Refuses folders that only this machine has."""
    local = [
        f"--{name}={folder}"
        for name, several in folders.items()
        for folder in several
        if "://" not in str(folder)
    ]
    if local:
        raise UsageError(
            f"the workers of Dataflow cannot reach {' and '.join(local)}: only what is "
            "in a bucket, gs://BUCKET/FOLDER. `gcloud storage cp -r` takes photos there"
        )


def _refuse_missing(options: Mapping[str, Any]) -> None:
    names = ("project", "region", "temp_location")
    missing = [f"--{name}" for name in names if not options.get(name)]
    if missing:
        raise UsageError(
            f"--runner=dataflow needs {' and '.join(missing)} after `--`: for example "
            "-- --project=PROJECT --region=europe-west4 --temp_location=gs://BUCKET/tmp"
        )


def _see_bucket(options: Mapping[str, Any]) -> None:
    """Looks for the bucket where Beam stages the job; one try."""
    try:
        from google.api_core.exceptions import GoogleAPIError
        from google.cloud import storage
    except ImportError as error:
        raise RunError(
            f"--runner=dataflow needs Google's clients ({error}): install the extra "
            'gcp, `pip install -e ".[gcp]"`'
        ) from error
    credentials = _credentials()
    name = options["temp_location"].split("/")[2]
    client = storage.Client(options["project"], credentials)
    try:
        client.get_bucket(name, timeout=_SECONDS, retry=None)
    except (GoogleAPIError, OSError) as error:
        raise RunError(
            f"the bucket gs://{name} of --temp_location cannot be used: {error}. Is "
            "the name right, and may this account read and write there?"
        ) from error


def _credentials() -> Any:
    """Returns what Google's clients find on this machine, tried out once."""
    import google.auth
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import Request

    try:
        credentials, _ = google.auth.default(scopes=[_SCOPE])
        credentials.refresh(functools.partial(Request(), timeout=_SECONDS))
    except GoogleAuthError as error:
        raise RunError(
            f"no usable Google credentials: {error}. Run `gcloud auth "
            "application-default login`, or have GOOGLE_APPLICATION_CREDENTIALS name "
            "the JSON key of a service account."
        ) from error
    return credentials


DATAFLOW = Engine(
    defaults=lambda workers: _DEFAULTS,
    check_options=_check,
    check_folders=_refuse_local,
    patience=1200,  # its machines start, and install
)
