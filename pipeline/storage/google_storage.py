"""Google Cloud Storage, by its own client.

Credentials are those that it finds: GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth
application-default login`, the service account of the machine. STORAGE_EMULATOR_HOST
names another server.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import requests
import urllib3
from google.api_core import exceptions
from google.auth import exceptions as auth
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption

from pipeline.storage import object_store
from pipeline.storage.object_store import Entry, Page, StoreError, TransientError


def connect() -> "GoogleStorage":
    """The client."""
    return GoogleStorage()


class GoogleStorage:
    """See pipeline.storage.object_store.Store."""

    def __init__(self) -> None:
        times = (object_store.CONNECT_SECONDS, object_store.READ_SECONDS)
        self._patience = {
            "retry": None,
            "timeout": times,
        }  # object_store.insist tries again
        with _explained("connect to"):
            self._first = storage.Client()
        # A session of requests is for one thread at a time; credentials are for all.
        self._idle = [self._first]

    def page(
        self, bucket: str, prefix: str, *, delimiter: str, limit: int, token: str
    ) -> Page:
        with (
            _explained("list", bucket, prefix, of_object=False),
            self._client() as client,
        ):
            found = client.list_blobs(
                bucket,
                prefix=prefix or None,
                delimiter=delimiter or None,
                max_results=limit,
                page_token=token or None,
                fields="items(name,size),prefixes,nextPageToken",
                **self._patience,
            )
            blobs = next(found.pages, ())
            here = [Entry(blob.name, blob.size) for blob in blobs]
        below = [Entry(prefix, None) for prefix in found.prefixes]
        return Page(sorted(below + here), found.next_page_token or "")

    def size(self, bucket: str, key: str) -> int:
        with _explained("look at", bucket, key), self._client() as client:
            blob = client.bucket(bucket).blob(key)
            blob.reload(**self._patience)
            return int(blob.size)

    def read(self, bucket: str, key: str, start: int, length: int | None) -> bytes:
        end = None if length is None else start + length - 1
        try:
            with _explained("read", bucket, key), self._client() as client:
                blob = client.bucket(bucket).blob(key)
                content: bytes = blob.download_as_bytes(
                    start=start or None, end=end, raw_download=True, **self._patience
                )
        except exceptions.RequestRangeNotSatisfiable:
            return b""
        return content

    def upload(self, path: Path, bucket: str, key: str) -> int:
        with (
            _explained("write", bucket, key, of_object=False),
            self._client() as client,
        ):
            blob = client.bucket(bucket).blob(key)
            blob.upload_from_filename(
                str(path), content_type="application/octet-stream", **self._patience
            )
            return int(blob.size)

    def delete(self, bucket: str, keys: Sequence[str]) -> None:
        for key in keys:
            with (
                contextlib.suppress(FileNotFoundError),
                _explained("delete", bucket, key),
                self._client() as client,
            ):
                client.bucket(bucket).delete_blob(key, **self._patience)

    @contextlib.contextmanager
    def _client(self) -> Iterator[storage.Client]:
        """A client that nobody else uses meanwhile."""
        try:
            client = self._idle.pop()
        except IndexError:
            credentials = self._first._credentials
            client = storage.Client(self._first.project, credentials)
        try:
            yield client
        finally:
            self._idle.append(client)


@contextlib.contextmanager
def _explained(what: str, *where: str, of_object: bool = True) -> Iterator[None]:
    """Turns the client's errors into those of pipeline.storage.object_store.Store."""
    uri = f"gs://{'/'.join(where)}".rstrip("/")
    try:
        yield
    except exceptions.RequestRangeNotSatisfiable:
        raise
    except exceptions.NotFound as error:
        if of_object:
            raise FileNotFoundError(2, "No such object", uri) from error
        raise StoreError(
            f"cannot {what} {uri}: there is no bucket {where[0]!r}. Correct its name, "
            f"or make it: `gcloud storage buckets create gs://{where[0]}`."
        ) from error
    except (exceptions.Forbidden, exceptions.Unauthorized) as error:
        raise StoreError(
            f"cannot {what} {uri}: the store refuses ({error.message}). Allow these "
            f"credentials to list, read, write and delete in {where[0]!r} (the role "
            "storage.objectAdmin), or use others."
        ) from error
    except (
        exceptions.ServerError,
        exceptions.TooManyRequests,
        DataCorruption,
        auth.TransportError,
        requests.exceptions.ConnectionError,
        requests.exceptions.Timeout,
        requests.exceptions.ChunkedEncodingError,
        urllib3.exceptions.HTTPError,
    ) as error:
        raise TransientError(str(error)) from error
    except (auth.DefaultCredentialsError, auth.RefreshError) as error:
        raise StoreError(
            f"cannot {what} {uri}: {error} Give credentials: `gcloud auth "
            "application-default login`, GOOGLE_APPLICATION_CREDENTIALS, or the "
            "service account of the machine."
        ) from error
    except (exceptions.GoogleAPICallError, ValueError) as error:
        raise StoreError(f"cannot {what} {uri}: {error}. Correct the path.") from error
