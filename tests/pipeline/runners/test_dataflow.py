"""The job for Dataflow as far as it goes without an account: up to its template.

Beam's own DataflowRunner builds and stages it in a Cloud Storage on this machine, with
the key of an account whose tokens come from this machine, too.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.shards import plan
from pipeline.sources.layout import list_images
from pipeline.storage import object_store
from pipeline.storage.object_paths import ObjectPath
from tests.support import object_servers
from tests.support.files import REPOSITORY
from tests.support.photos import HEIGHT, WIDTH
from tests.support.processes import Program

storage = pytest.importorskip("google.cloud.storage", reason="needs the extra gcp")
pytest.importorskip("apitools", reason="needs the extra gcp: make install EXTRAS=,gcp")

FLAGS = (f"--height={HEIGHT}", f"--width={WIDTH}", "--max_reject_fraction=0.5")
WHERE = ("--project=some-project", "--region=europe-west4")
BUCKET = "tests"


@dataclass(frozen=True)
class Cloud:
    """A Cloud Storage with one bucket.

    Attributes:
        environment: for programs that are to use it.
        bucket: as Google's client has it.
    """

    environment: dict[str, str]
    bucket: Any

    def read(self, uri: str) -> bytes:
        return self.bucket.blob(uri.removeprefix(f"gs://{BUCKET}/")).download_as_bytes()


class Tokens(BaseHTTPRequestHandler):
    """Gives everybody a token."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        answer = {"access_token": "token", "expires_in": 3600, "token_type": "Bearer"}
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def token_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Tokens) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/token"
        server.shutdown()


def write_key(path: Path, tokens: str) -> None:
    """The key of a service account that gets its tokens at an address."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    secret = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    key = {
        "type": "service_account",
        "project_id": "some-project",
        "private_key": secret.decode(),
        "private_key_id": "tests",
        "client_email": "tests@some-project.iam.gserviceaccount.com",
        "token_uri": tokens,
    }
    path.write_text(json.dumps(key))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """As elsewhere, in a folder of its own, where logs of remote datasets go."""
    here = tmp_path_factory.mktemp("here")

    def run(
        *words: object, env: Mapping[str, str] = os.environ
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *map(str, words)],
            capture_output=True,
            text=True,
            cwd=here,
            env=dict(env) | {"PYTHONPATH": str(REPOSITORY)},
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Cloud]:
    """A Cloud Storage that holds IMAGES: one server for Beam, and one for us."""
    if not (binary := object_servers.gcs_emulator()):
        pytest.skip("no fake-gcs-server: `make store-emulators` builds it")
    key = tmp_path_factory.mktemp("key") / "key.json"
    with (
        object_servers.gs_server(binary) as port,
        object_servers.store("gs") as proxy,
        token_server() as tokens,
        pytest.MonkeyPatch.context() as patch,
    ):
        write_key(key, tokens)
        ours = {
            **object_servers.gs_environment(port),
            "GOOGLE_BASE_URL": f"http://127.0.0.1:{proxy.port}",
            "GOOGLE_APPLICATION_CREDENTIALS": str(key),
        }
        for name, value in ours.items():
            patch.setenv(name, value)
        bucket = storage.Client.create_anonymous_client().create_bucket(BUCKET)
        object_servers.make_bucket("gs", BUCKET, proxy.upstream)
        object_store.bucket.cache_clear()
        object_servers.put_tree(images, ObjectPath(f"gs://{BUCKET}/images"))
        yield Cloud(os.environ | ours, bucket)
        object_store.bucket.cache_clear()


def words(dataset: str, *options: str, shards: int = 2) -> list[str]:
    return [
        *("pipeline", "shards", f"--images=gs://{BUCKET}/images", *FLAGS),
        *(f"--dataset=gs://{BUCKET}/{dataset}", f"--shards={shards}"),
        *("--runner=dataflow", "--", *WHERE, *options),
    ]


def make_template(cloud: Cloud, program: Program, name: str, shards: int) -> Any:
    options = (
        f"--temp_location=gs://{BUCKET}/temporary",
        f"--template_location=gs://{BUCKET}/{name}.json",
    )
    result = program(
        *words(f"dataset-{name}", *options, shards=shards), env=cloud.environment
    )
    assert result.returncode == 0, result.stderr
    assert f"gs://{BUCKET}/{name}.json" in result.stdout
    return json.loads(cloud.read(f"{name}.json"))


def graph(cloud: Cloud, template: Any) -> bytes:
    options = template["environment"]["sdkPipelineOptions"]["options"]
    return cloud.read(options["pipelineUrl"])


@pytest.fixture(scope="module")
def template(cloud: Cloud, program: Program) -> Any:
    return make_template(cloud, program, "of-02", shards=2)


def test_the_template_holds_the_whole_job(cloud: Cloud, template: Any) -> None:
    """The last step, too: dataset.json is not left to the launcher."""
    from apache_beam.portability.api import beam_runner_api_pb2

    pipeline = beam_runner_api_pb2.Pipeline.FromString(graph(cloud, template))
    steps = {step.unique_name for step in pipeline.components.transforms.values()}
    assert {
        "ListMissingShards",
        "Spread",
        "WriteShard",
        "CountShards",
        "WriteManifest",
    } <= steps
    assert template["type"] == "JOB_TYPE_BATCH"


def test_what_is_asked_of_the_workers(template: Any) -> None:
    (pool,) = template["environment"]["workerPools"]
    assert pool["machineType"] == "n2d-standard-4"
    assert pool["diskSizeGb"] == 50
    assert pool["numThreadsPerWorker"] == 1
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 16
    (image,) = pool["sdkHarnessContainerImages"]
    assert image["useSingleCorePerContainer"]  # a process on every core


def test_the_package_is_staged_and_no_session(cloud: Cloud, template: Any) -> None:
    """The pickled main module would hold the flags of the launcher."""
    (pool,) = template["environment"]["workerPools"]
    (package,) = pool["packages"]
    assert package["name"] == "workflow.tar.gz"
    _, _, key = package["location"].partition(f"storage.googleapis.com/{BUCKET}/")
    assert cloud.bucket.blob(key).exists()


def test_the_job_holds_a_name_for_each_shard(
    cloud: Cloud, template: Any, program: Program
) -> None:
    """Dataflow takes 10 MB: those of 100 million photos fit."""
    more = make_template(cloud, program, "of-20", shards=20)
    names = 3 * (20 - 2)  # of three splits
    assert len(graph(cloud, more)) - len(graph(cloud, template)) < 100 * names


@pytest.mark.slow
def test_a_clean_worker_makes_a_shard_of_the_staged_package(
    cloud: Cloud, template: Any, images: Path, made_dataset: Path, tmp_path: Path
) -> None:
    """Installed as Beam's container does it, with what setup.py asks for alone."""
    (pool,) = template["environment"]["workerPools"]
    _, _, key = pool["packages"][0]["location"].partition(f"/{BUCKET}/")
    package = tmp_path / "workflow.tar.gz"
    package.write_bytes(cloud.bucket.blob(key).download_as_bytes())
    python = install(package, tmp_path / "worker")
    listing = list_images(images)
    slices = plan.cut_slices(listing, count=2, seed=0)
    folder = tmp_path / "dataset"
    (folder / "_work" / "done").mkdir(parents=True)
    name, *_ = plan.write_plan(folder, slices, listing.classes)
    made = subprocess.run(
        [python, "-c", WORK, name, folder, str(HEIGHT), str(WIDTH)],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.split() == ["no", "tensorflow"]
    assert (folder / name).read_bytes() == (made_dataset / name).read_bytes()


WORK = """
import importlib.util
import sys
from pipeline.runners import execution
from pipeline.shards import shard_writer
from pipeline.dataset.manifest import ImageContract

name, folder, height, width = sys.argv[1:]
shard_writer.write(name, folder, ImageContract(height=int(height), width=int(width)))
assert importlib.util.find_spec("tensorflow") is None
print("no tensorflow")
"""


def install(package: Path, environment: Path) -> Path:
    """Makes an environment as the container has it; returns its Python."""
    uv = Path(sys.executable).parent / "uv"
    pinned = ("--constraint", REPOSITORY / "constraints.txt")
    python = environment / "bin" / "python"
    install = (uv, "pip", "install", "--quiet", "--python", python, *pinned)
    subprocess.run([uv, "venv", "--quiet", environment], check=True)
    subprocess.run([*install, "setuptools"], check=True)
    subprocess.run([*install, "--no-build-isolation", package], check=True)
    return python


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--runner=dataflow needs --temp_location after `--`"),
        (("--temp_location=/tmp/a",), "--temp_location=/tmp/a is no gs://BUCKET/"),
        (
            ("--temp_location=gs://tests/a", "--machine_kind=x"),
            "knows no option --machine_kind",
        ),
    ],
)
def test_wrong_usage(options: tuple[str, ...], said: str, program: Program) -> None:
    result = program(*words("dataset", *options))
    assert result.returncode == 2, result.stderr
    assert said in result.stderr


def test_folders_that_no_cloud_worker_can_reach(
    images: Path, tmp_path: Path, program: Program
) -> None:
    result = program(
        *("pipeline", f"--images={images}", f"--dataset={tmp_path / 'made'}"),
        *("--runner=dataflow", "--", *WHERE, "--temp_location=gs://tests/a"),
    )
    assert result.returncode == 2, result.stderr
    assert "gs://" in result.stderr
    assert str(images) in result.stderr


def test_a_bucket_that_is_not_there(cloud: Cloud, program: Program) -> None:
    there = "--temp_location=gs://nobody-has-this/a"
    result = program(*words("dataset", there), env=cloud.environment)
    assert result.returncode == 1, result.stderr
    assert "gs://nobody-has-this" in result.stderr


def test_a_key_that_gets_no_token(
    cloud: Cloud, tmp_path: Path, program: Program
) -> None:
    """Beam alone would try for minutes."""
    write_key(tmp_path / "key.json", "http://127.0.0.1:9/token")  # nobody is there
    environment = cloud.environment | {
        "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json")
    }
    there = f"--temp_location=gs://{BUCKET}/a"
    result = program(*words("dataset", there), env=environment)
    assert result.returncode == 1, result.stderr
    assert "no usable Google credentials" in result.stderr
