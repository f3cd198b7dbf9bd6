"""Amazon S3 and what speaks its protocol, by boto3.

Credentials, region and endpoint are those that boto3 finds: AWS_PROFILE, AWS_REGION,
AWS_ENDPOINT_URL, ~/.aws, the role of the machine.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import boto3
from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore import exceptions
from botocore.config import Config

from pipeline.storage import object_store
from pipeline.storage.object_store import Entry, Page, StoreError, TransientError

_SINGLE_PUT = 64 << 20  # bytes; beyond it in parts, which appear together
_DELETED_TOGETHER = 1000  # all that a request takes
_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.TokenRetrievalError,
    exceptions.ProfileNotFound,
    exceptions.SSOError,
)
_PASSING_ERRORS = (
    exceptions.ConnectionError,
    exceptions.HTTPClientError,
    exceptions.IncompleteReadError,
)
_REFUSED_CODES = (
    *("AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch"),
    *("ExpiredToken", "InvalidToken", "AllAccessDisabled", "AccountProblem"),
)
_PASSING_CODES = (
    *("SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "IncompleteBody"),
    *("Throttling", "ThrottlingException", "OperationAborted", "BadDigest"),
)


def connect() -> "S3":
    """The client."""
    return S3()


class S3:
    """See pipeline.storage.object_store.Store."""

    def __init__(self) -> None:
        config = Config(
            connect_timeout=object_store.CONNECT_SECONDS,
            read_timeout=object_store.READ_SECONDS,
            retries={"total_max_attempts": 1},  # object_store.insist does that
            max_pool_connections=object_store.CONNECTIONS,
        )
        with _explained("connect to", ""):
            self._client = boto3.session.Session().client("s3", config=config)

    def page(
        self, bucket: str, prefix: str, *, delimiter: str, limit: int, token: str
    ) -> Page:
        asked = {"Delimiter": delimiter, "ContinuationToken": token}
        with _explained("list", bucket, prefix):
            found = self._client.list_objects_v2(
                Bucket=bucket,
                Prefix=prefix,
                MaxKeys=limit,
                **{name: value for name, value in asked.items() if value},
            )
        below = [Entry(p["Prefix"], None) for p in found.get("CommonPrefixes", ())]
        here = [Entry(one["Key"], one["Size"]) for one in found.get("Contents", ())]
        return Page(sorted(below + here), found.get("NextContinuationToken", ""))

    def size(self, bucket: str, key: str) -> int:
        with _explained("look at", bucket, key):
            length: int = self._client.head_object(Bucket=bucket, Key=key)[
                "ContentLength"
            ]
        return length

    def read(self, bucket: str, key: str, start: int, length: int | None) -> bytes:
        end = "" if length is None else start + length - 1
        part = {"Range": f"bytes={start}-{end}"} if start or length else {}
        try:
            with _explained("read", bucket, key):
                found = self._client.get_object(Bucket=bucket, Key=key, **part)
                with contextlib.closing(found["Body"]) as body:
                    content: bytes = body.read()
        except _BeyondEndError:
            return b""
        return content

    def upload(self, path: Path, bucket: str, key: str) -> int:
        threshold = TransferConfig(multipart_threshold=_SINGLE_PUT, use_threads=False)
        with _explained("write", bucket, key):
            try:
                self._client.upload_file(str(path), bucket, key, Config=threshold)
            except S3UploadFailedError as error:
                raise error.__context__ or error from None
        return self.size(bucket, key)

    def delete(self, bucket: str, keys: Sequence[str]) -> None:
        for first in range(0, len(keys), _DELETED_TOGETHER):
            some = [{"Key": key} for key in keys[first : first + _DELETED_TOGETHER]]
            with _explained("delete objects of", bucket):
                answer = self._client.delete_objects(
                    Bucket=bucket, Delete={"Objects": some, "Quiet": True}
                )
            for problem in answer.get("Errors", ()):
                raise TransientError(f"{problem['Key']}: {problem['Message']}")


class _BeyondEndError(Exception):
    """A range begins where an object ends, or later."""


@contextlib.contextmanager
def _explained(what: str, *where: str) -> Iterator[None]:
    """Turns boto3's errors into those of pipeline.storage.object_store.Store."""
    uri = f"s3://{'/'.join(where)}".rstrip("/")
    try:
        yield
    except exceptions.ClientError as error:
        _explain(error, what, uri, where[0])
    except _CREDENTIALS as error:
        raise StoreError(
            f"cannot {what} {uri}: {error}. Give credentials as for the AWS command "
            "line: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or the "
            "role of the machine."
        ) from error
    except _PASSING_ERRORS as error:
        raise TransientError(str(error)) from error
    except (exceptions.BotoCoreError, ValueError) as error:  # a name, a region, a URL
        raise StoreError(
            f"cannot {what} {uri}: {error}. Correct the path, or what AWS_REGION and "
            "AWS_ENDPOINT_URL say."
        ) from error


def _explain(error: exceptions.ClientError, what: str, uri: str, bucket: str) -> None:
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "InvalidRange" or status == 416:
        raise _BeyondEndError from error
    if code == "NoSuchBucket":
        raise StoreError(
            f"cannot {what} {uri}: there is no bucket {bucket!r}. Correct its name, or "
            f"make it: `aws s3 mb s3://{bucket}`."
        ) from error
    if status == 404:
        raise FileNotFoundError(2, "No such object", uri) from error
    if status >= 500 or status == 429 or code in _PASSING_CODES:
        raise TransientError(str(error)) from error
    if status in (401, 403) or code in _REFUSED_CODES:
        raise StoreError(
            f"cannot {what} {uri}: the store refuses ({code or status}). Allow these "
            f"credentials to list, read, write and delete in {bucket!r}, or use others."
        ) from error
    raise StoreError(f"cannot {what} {uri}: {error}. Correct the path.") from error
