"""Who we say we are to a store, and where it is: what users of each cloud expect."""

import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.storage import object_store
from pipeline.storage.object_paths import ObjectPath
from pipeline.storage.object_store import StoreError
from tests.support import object_servers
from tests.support.object_servers import Proxy


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user without credentials, on a machine without a role."""
    for name in os.environ:
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_", "STORAGE_EMULATOR")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    object_store.bucket.cache_clear()
    yield
    object_store.bucket.cache_clear()


@pytest.fixture(scope="module")
def moto() -> Iterator[Proxy]:
    """A server of S3, which Google's API resembles, with a bucket."""
    with object_servers.store("s3") as proxy:
        object_servers.make_bucket("s3", "bucket", proxy.upstream)
        yield proxy


def sent(uri: str, proxy: Proxy) -> dict[str, str]:
    """The headers of a request for a listing."""
    proxy.headers = {}
    assert list(ObjectPath(uri).walk_files()) == []
    return proxy.headers


def test_keys(moto: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in object_servers.s3_environment(moto.port).items():
        monkeypatch.setenv(name, value)
    signed = sent("s3://bucket", moto)["authorization"]
    assert "Credential=tests/" in signed
    assert "/us-east-1/s3/" in signed


def test_a_profile(
    moto: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With its region and its endpoint."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = WRONG\naws_secret_access_key = WRONG\n"
        "[lab]\naws_access_key_id = PROFILE\naws_secret_access_key = s\n"
    )
    (tmp_path / ".aws" / "config").write_text(
        "[profile lab]\nregion = eu-central-1\n"
        f"endpoint_url = http://127.0.0.1:{moto.port}\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "lab")
    signed = sent("s3://bucket", moto)["authorization"]
    assert "Credential=PROFILE/" in signed
    assert "/eu-central-1/s3/" in signed


def test_no_such_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "gone")
    with pytest.raises(StoreError, match=r"profile \(gone\) could not be found.*Give"):
        ObjectPath("s3://bucket/a").is_file()


def test_a_public_bucket(moto: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{moto.port}")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    assert "authorization" not in sent("s3://bucket", moto)
    monkeypatch.setenv("GOOGLE_BASE_URL", f"http://127.0.0.1:{moto.port}")
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    assert "authorization" not in sent("gs://bucket", moto)


class Machine(BaseHTTPRequestHandler):
    """What tells a machine of AWS, or a container, its role."""

    def do_PUT(self) -> None:
        self._answer("a token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})

    def do_GET(self) -> None:
        if self.path.endswith("security-credentials/"):
            self._answer("the-role")
            return
        end = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        told = {"Code": "Success", "AccessKeyId": "ROLE", "SecretAccessKey": "s"}
        self._answer(json.dumps({**told, "Token": "of the role", "Expiration": end}))

    def _answer(self, text: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(200)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def machine() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Machine) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("where", ["machine", "container"])
def test_a_role(
    moto: Proxy, monkeypatch: pytest.MonkeyPatch, machine: str, where: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{moto.port}")
    if where == "machine":
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", machine)
    else:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{machine}/role")
    headers = sent("s3://bucket", moto)
    assert "Credential=ROLE/" in headers["authorization"]
    assert headers["x-amz-security-token"] == "of the role"


def test_googles_application_default_credentials(
    moto: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a file that a variable names, and where gcloud writes it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    secret = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    key = {
        "type": "service_account",
        "private_key": secret.decode(),
        "private_key_id": "1",
        "client_email": "tests@some-project.iam.gserviceaccount.com",
    }
    monkeypatch.setenv("GOOGLE_BASE_URL", f"http://127.0.0.1:{moto.port}")
    named = tmp_path / "key.json"
    written = tmp_path / ".config" / "gcloud" / "application_default_credentials.json"
    written.parent.mkdir(parents=True)
    for path in (named, written):
        path.write_text(json.dumps(key))
        if path == named:
            monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        signed = sent("gs://bucket", moto)["authorization"]
        assert signed.startswith("Bearer eyJ")  # a JSON Web Token
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        object_store.bucket.cache_clear()


def test_an_emulator_of_google(moto: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"http://127.0.0.1:{moto.port}"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
    sent("gs://bucket", moto)
    assert moto.requests[-1].startswith("GET /bucket?list-type=2")


def test_a_public_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Everybody reads it, and nobody writes to it, nor reads another."""
    if not object_servers.azurite():
        pytest.skip("no Azurite: `make store-emulators` installs it")
    photo = tmp_path / "photo"
    photo.write_bytes(b"photo")
    with object_servers.store("az") as proxy:
        for name in ("public", "private"):
            public = name == "public"
            object_servers.make_bucket("az", name, proxy.upstream, public=public)
        environment = object_servers.az_environment(proxy.port)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        ObjectPath("az://public/a/photo").upload(photo)
        object_store.bucket.cache_clear()
        monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
        monkeypatch.setenv("AZURE_SKIP_SIGNATURE", "true")
        (found,) = ObjectPath("az://public").walk_files()
        assert found.read_bytes() == b"photo"
        assert "authorization" not in proxy.headers
        for path in (ObjectPath("az://public/b"), ObjectPath("az://private/b")):
            with pytest.raises(StoreError, match=f"cannot write {path}: .*use others"):
                path.upload(photo)
        with pytest.raises(StoreError, match="cannot list az://private: "):
            list(ObjectPath("az://private").walk_files())


def test_accounts_of_azure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The right key, and a wrong one, which a real server refuses."""
    if not object_servers.azurite():
        pytest.skip("no Azurite: `make store-emulators` installs it")
    with object_servers.store("az") as proxy:
        object_servers.make_bucket("az", "bucket", proxy.upstream)
        for name, value in object_servers.az_environment(proxy.port).items():
            monkeypatch.setenv(name, value)
        assert sent("az://bucket", proxy)["authorization"].startswith("SharedKey")
        object_store.bucket.cache_clear()
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")
        with pytest.raises(StoreError, match=r"cannot list .*: the store refuses"):
            ObjectPath("az://bucket/a").is_dir()
        object_store.bucket.cache_clear()
        monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
        monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sv=2023-11-03&sig=no")
        with pytest.raises(StoreError, match=r"refuses: Auth.* or use others"):
            ObjectPath("az://bucket/a").is_dir()
        assert "sig=no" in proxy.requests[-1]
