"""The objects of a bucket of S3, of Google Cloud Storage, or of Azure, by obstore.

    s3://BUCKET/KEY    AWS_* variables, AWS_PROFILE, ~/.aws, the role of the machine
    gs://BUCKET/KEY    application default credentials; STORAGE_EMULATOR_HOST
    az://CONTAINER/KEY AZURE_STORAGE_ACCOUNT_NAME and a key, a token, an identity

obstore brings the protocols. What it leaves to us: it reads no AWS profile (botocore
does); it gives one error for very different failures; it tries neither a deletion nor
half an answer of a listing again; it hangs in a process that was forked from one that
used it; and it holds back signals until a request ends.

Beam's own filesystems are not used. They make a client for every call (182 ms for an
object of 250 KB that a kept client reads in 3 ms). On S3 they publish what was written
before an exception, cannot write an empty object, and list a bucket that is not there
as an empty one. They try a failing request for ten minutes.
"""

import contextlib
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pipeline.system.errors import UnavailableError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Credential

READ_SECONDS = 10.0  # without a byte
CONNECTIONS = 16  # of a process, at once
SCHEMES = ("s3", "gs", "az")

_CONNECT_SECONDS = 5.0
_SMALL = 1 << 20  # bytes; obstore counts the time that an upload takes as silence
_UPLOAD_SECONDS = 120.0  # of what is larger
_PART = 16 << 20  # bytes; above it a file is sent in parts, which appear together
_PARTS_AT_ONCE = 2
_PAGE = 1000  # keys that a store tells by one request
_DELETED_TOGETHER = 1000
_CREDENTIALS_LAST = timedelta(minutes=10)  # botocore renews them earlier than that

_TRIES = 6
_FIRST_WAIT = 0.25  # seconds; each further wait is twice as long
_PATIENCE = 30.0  # seconds until the last try; less than --image_timeout

_STATUS = re.compile(r"status code: (\d{3})")
_ANSWER = re.compile("<Code>(?P<code>.*?)</Code>.*?<Message>(?P<message>[^\n<]*)", re.S)
_NOISE = re.compile(
    r"Generic \w+ error: |Error performing \w+ request: | in [0-9.]+\w+(?= - )"
)
_INNER = re.compile(r'message: "([^"]+)"')  # of the system, such as Connection refused
_NO_BUCKET = re.compile("NoSuchBucket|ContainerNotFound|container does not exist")
_NO_CREDENTIALS = re.compile(
    "token request|169.254.169.254|credential provider|Account must be specified|"
    "Unable to open service account file|Unable to decode service account"
)
_CREDENTIALS = {
    "s3": "as for the AWS command line: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "AWS_PROFILE, or the role of the machine; AWS_SKIP_SIGNATURE=true for a public "
    "bucket",
    "gs": "`gcloud auth application-default login`, GOOGLE_APPLICATION_CREDENTIALS, "
    "or the service account of the machine; GOOGLE_SKIP_SIGNATURE=true for a public "
    "bucket",
    "az": "AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY, "
    "AZURE_STORAGE_SAS_TOKEN, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET and "
    "AZURE_TENANT_ID, or the identity of the machine",
}
_MAKE = {
    "s3": "aws s3 mb s3://{}",
    "gs": "gcloud storage buckets create gs://{}",
    "az": "az storage container create --name {}",
}

_T = TypeVar("_T")


class StoreError(UnavailableError):
    """A store cannot be reached, or refuses: no fault of an image."""


class TransientError(Exception):
    """A request failed in a way that may not come again."""


class Entry(NamedTuple):
    """One line of a listing: an object, or without a size what keys have in common."""

    key: str
    size: int | None


class Bucket:
    """The objects of a bucket, for one process and all its threads.

    Every method asks again, after growing waits, while that may help.

    Raises (every method):
        FileNotFoundError: there is no such object.
        StoreError: there is no such bucket, the store refuses, or it failed every time.
    """

    def __init__(self, scheme: str, name: str) -> None:
        self._scheme, self._name = scheme, name
        try:
            import obstore
            from obstore import exceptions

            if scheme == "s3":
                import botocore.session  # noqa: F401
        except ImportError as error:
            raise StoreError(
                f"{scheme}:// needs a library that is not installed ({error.name}): "
                "`pip install 'vgg16-at-scale[stores]'`, here and on every worker."
            ) from error
        self._obstore, self._errors = obstore, exceptions
        self._process = os.getpid()
        self._store, self._patient_store = self._explained(
            "connect to",
            "",
            lambda: (self._connect(READ_SECONDS), self._connect(_UPLOAD_SECONDS)),
        )

    def size(self, key: str) -> int:
        """Returns the bytes of an object."""
        found = self._ask("look at", key, lambda: self._obstore.head(self._store, key))
        return found["size"]

    def read(self, key: str, start: int, length: int | None) -> bytes:
        """Reads a part of an object, less where it ends before; or all of it.

        Args:
            key: of the object.
            start: the first byte; 0 where all is read.
            length: at most so many bytes; without it, all.
        """
        if length is None:
            return self._ask(
                "read", key, lambda: self._obstore.get(self._store, key).bytes()
            ).to_bytes()
        try:
            return self._ask(
                "read",
                key,
                lambda: self._obstore.get_range(
                    self._store, key, start=start, length=length
                ),
            ).to_bytes()
        except _BeyondEndError:
            return b""

    def upload(self, path: Path, key: str) -> int:
        """Makes an object of a file; returns the size that the store then says.

        It appears whole or not at all: its length is announced before its content.
        """
        size = path.stat().st_size
        store = self._store if size <= _SMALL else self._patient_store
        self._ask(
            "write",
            key,
            lambda: self._obstore.put(
                store,
                key,
                path,
                use_multipart=size > _PART,
                chunk_size=_PART,
                max_concurrency=_PARTS_AT_ONCE,
            ),
            patient=True,  # it may take minutes until it fails
        )
        return self.size(key)

    def delete(self, keys: Sequence[str]) -> None:
        """Deletes objects, and does not mind those that are gone."""

        def ask(some: Sequence[str]) -> None:
            self._ask(
                "delete", some[0], lambda: self._obstore.delete(self._store, some)
            )

        for first in range(0, len(keys), _DELETED_TOGETHER):
            some = keys[first : first + _DELETED_TOGETHER]
            try:
                ask(some)
            except FileNotFoundError:  # one is gone; others may not have been tried
                for key in some:
                    with contextlib.suppress(FileNotFoundError):
                        ask([key])

    def walk(self, folder: str) -> Iterator[Entry]:
        """Yields every object below a folder, in order of the keys.

        What a console makes of a folder, an empty object whose key ends with `/`, is
        left out where the folder holds anything: obstore tells it without the `/`.
        """
        stream, last = None, None

        def more() -> Any:
            nonlocal stream
            if stream is None:
                stream = self._obstore.list(
                    self._store, folder or None, offset=last, chunk_size=_PAGE
                )
            try:
                return next(stream, ())
            except self._errors.BaseError:
                stream = None  # it ends with an error; the next goes on behind `last`
                raise

        before = Entry(folder, 0)
        while found := self._ask("list", folder, more):
            for one in found:
                last = one["path"]
                if before.key != folder and (
                    before.size or not last.startswith(f"{before.key}/")
                ):
                    yield before
                before = Entry(last, one["size"])
        if before.key != folder:
            yield before

    def level(self, folder: str) -> list[Entry]:
        """Lists what is in a folder, in order; its folders have no size."""
        found = self._ask(
            "list",
            folder,
            lambda: self._obstore.list_with_delimiter(self._store, folder or None),
        )
        below = {key: Entry(key, None) for key in found["common_prefixes"]}
        here = [
            Entry(one["path"], one["size"])
            for one in found["objects"]
            if one["size"] or one["path"] not in {*below, folder}
        ]
        return sorted([*below.values(), *here])

    def _connect(self, seconds: float) -> Any:
        """Makes a client, which connects later.

        Args:
            seconds: that it waits for the next byte.
        """
        from obstore import store

        options: ClientConfig = {
            "allow_http": True,  # where an endpoint says so, as on one's own machine
            "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
            "read_timeout": timedelta(seconds=seconds),
            "timeout": timedelta(hours=1),  # of a whole request: 30 s cut a large one
        }
        shared: dict[str, Any] = {
            "client_options": options,
            "retry_config": {"max_retries": 0},  # `_ask` tries again
        }
        if self._scheme == "s3":
            return store.S3Store(self._name, **shared, **_aws())
        if self._scheme == "az":
            return store.AzureStore(self._name, **shared)
        emulator = os.environ.get("STORAGE_EMULATOR_HOST")
        if emulator and not os.environ.get("GOOGLE_BASE_URL"):
            shared |= {"base_url": emulator, "credential_provider": _anybody}
        return store.GCSStore(self._name, **shared)

    def _ask(
        self,
        what: str,
        key: str,
        action: Callable[[], _T],
        *,
        patient: bool = False,
    ) -> _T:
        """Calls, and calls again after growing, random waits while it may still work.

        Args:
            what: for the message, such as "read".
            key: for the message.
            action: a request.
            patient: it is tried as often however long it takes.
        """
        if os.getpid() != self._process:
            raise StoreError(
                f"cannot {what} {self._uri(key)}: this process was forked from "
                "one that had used a store, and would hang. Start it anew: "
                "multiprocessing's `spawn` does."
            )
        started = time.monotonic()
        for number in range(1, _TRIES + 1):
            try:
                return self._explained(what, key, action)
            except TransientError as error:
                seconds = time.monotonic() - started
                waited_enough = seconds > _PATIENCE and number > 1 and not patient
                if number == _TRIES or waited_enough:
                    raise StoreError(
                        f"cannot {what} {self._uri(key)}: {error}. It was tried "
                        f"{number} times in {seconds:.0f} s. What was committed is "
                        "kept: see whether the store and the way to it are well, and "
                        "run the same command again."
                    ) from error
                time.sleep(_FIRST_WAIT * 2 ** (number - 1) * random.uniform(0.5, 1))
        raise AssertionError  # the last try returned or raised

    def _explained(self, what: str, key: str, action: Callable[[], _T]) -> _T:
        """Calls; turns obstore's errors into ours."""
        try:
            return action()
        except FileNotFoundError as error:
            if _NO_BUCKET.search(str(error)):
                raise self._no_bucket(what, key) from error
            raise FileNotFoundError(2, "No such object", self._uri(key)) from error
        except ValueError as error:  # a key that obstore cannot name
            if what in ("read", "look at"):
                raise FileNotFoundError(2, "No such object", self._uri(key)) from error
            raise self._cannot(what, key, f"{error}. Correct the path.") from error
        except self._errors.InvalidPathError as error:
            raise self._cannot(
                what,
                key,
                f"{_said(error)}. Rename or remove the objects whose keys have "
                "an empty part, `.` or `..` between slashes: no run can read them.",
            ) from error
        except self._errors.BaseError as error:
            raise self._explain(what, key, error) from error

    def _explain(self, what: str, key: str, error: Exception) -> Exception:
        """Returns what an error of obstore means."""
        said, found = _said(error), _STATUS.search(str(error))
        status = int(found[1]) if found else 0
        if _NO_CREDENTIALS.search(str(error)):
            advice = f"Give credentials: {_CREDENTIALS[self._scheme]}."
            return self._cannot(what, key, f"{said}. {advice}")
        if _NO_BUCKET.search(str(error)):
            return self._no_bucket(what, key)
        if status == 416 or "Wanted range starting" in said:
            return _BeyondEndError()
        if status in (408, 429) or status >= 500 or (not status and "HTTP" in said):
            return TransientError(said)
        refused = (
            self._errors.PermissionDeniedError,
            self._errors.UnauthenticatedError,
        )
        if isinstance(error, refused) or status in (401, 403):
            return self._cannot(
                what,
                key,
                f"the store refuses: {said}. Allow these credentials to list, read, "
                f"write and delete in {self._name!r}, or use others: "
                f"{_CREDENTIALS[self._scheme]}.",
            )
        return self._cannot(
            what,
            key,
            f"{said}. Correct the path, the endpoint, or the region (AWS_REGION).",
        )

    def _no_bucket(self, what: str, key: str) -> StoreError:
        make = _MAKE[self._scheme].format(self._name)
        return self._cannot(
            what,
            key,
            f"there is no bucket {self._name!r}. Correct its name, or make it: "
            f"`{make}`.",
        )

    def _cannot(self, what: str, key: str, why: str) -> StoreError:
        return StoreError(f"cannot {what} {self._uri(key)}: {why}")

    def _uri(self, key: str) -> str:
        return f"{self._scheme}://{self._name}/{key}".rstrip("/")


bucket = cache(Bucket)  # the first call of a process takes a moment


class _BeyondEndError(Exception):
    """A range begins where an object ends, or later."""


def _said(error: Exception) -> str:
    """Returns what the store says, or else obstore; what follows repeats it."""
    text = str(error).partition("\n\nDebug source")[0]
    if found := _ANSWER.search(text):
        return f"{found['code']}: {' '.join(found['message'].split())}".rstrip(".")
    inner = _INNER.search(str(error))
    return " ".join(_NOISE.sub("", text).split()).rstrip(". ") + (
        f" ({inner[1]})" if inner else ""
    )


def _aws() -> dict[str, Any]:
    """Returns credentials, region and endpoint, where obstore would not find them."""
    if os.environ.get("AWS_SKIP_SIGNATURE"):
        return {}
    import botocore.exceptions
    import botocore.session

    try:
        session = botocore.session.Session()
        credentials = session.get_credentials()
        region = session.get_config_variable("region")
        endpoint = session.get_scoped_config().get("endpoint_url")
    except botocore.exceptions.BotoCoreError as error:  # such as no such profile
        raise StoreError(
            f"cannot use AWS credentials: {error}. Give them {_CREDENTIALS['s3']}."
        ) from error
    if credentials is None:
        raise StoreError(
            f"there are no AWS credentials. Give credentials {_CREDENTIALS['s3']}."
        )

    def provide() -> "S3Credential":
        now = credentials.get_frozen_credentials()
        return {
            "access_key_id": now.access_key,
            "secret_access_key": now.secret_key,
            "token": now.token,
            "expires_at": datetime.now(UTC) + _CREDENTIALS_LAST,
        }

    found: dict[str, Any] = {"credential_provider": provide}
    if region:
        found["region"] = region
    if endpoint and not os.environ.get("AWS_ENDPOINT_URL"):
        found["endpoint"] = endpoint
    return found


def _anybody() -> dict[str, Any]:
    """Returns what an emulator takes: it asks for no credentials."""
    return {"token": "emulator", "expires_at": None}
