"""Shared fixtures: small photos, a small collection, its dataset."""

import contextlib
import errno
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    import servers

    from pipeline.storage.object_paths import ObjectPath

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
# In the background of a shell it would be ignored, by every program started here, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).parent.parent

CLASSES = ("blue", "green", "red")
PER_CLASS = {"train": 8, "validation": 3}
TEST = 7
HEIGHT, WIDTH = 32, 40  # the least that VGG16 takes


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    """Encodes uint8[height, width, 3] as a JPEG of quality 95."""
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", **{"quality": 95, **options})
    return encoded.getvalue()


def photo(channel: int, seed: int, height: int = 96, width: int = 120) -> np.ndarray:
    """A smooth picture; `channel`, of red, green and blue, is the brightest."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 90, (6, 8, 3), np.uint8)
    coarse[..., channel] += 130
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.BICUBIC))


def write_images(root: Path) -> None:
    """train/ and validation/ of three classes, a flat test/, two broken files."""
    for split, count in PER_CLASS.items():
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                seed = len(split) * 1000 + label * 100 + index
                pixels = photo(2 - label, seed)
                (folder / f"{index:02d}.jpg").write_bytes(jpeg(pixels))
    (root / "test").mkdir()
    for index in range(TEST):
        (root / "test" / f"photo {index}.jpg").write_bytes(
            jpeg(photo(index % 3, index))
        )
    whole = (root / "train" / "red" / "00.jpg").read_bytes()
    (root / "train" / "red" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "test" / "page.jpg").write_text("<html>not found</html>")


def tree(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def children(pid: int) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in found.stdout.split()]


def wait_for_shards(folder: Path, process: subprocess.Popen[str]) -> None:
    """Waits until some shards are committed, but not all."""
    while len(list(folder.glob("_work/done/*"))) < 3:
        assert process.poll() is None
        time.sleep(0.02)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root of split folders; not to be changed."""
    root = tmp_path_factory.mktemp("collection") / "images"
    write_images(root)
    return root


Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def program() -> Program:
    """Runs `python -m …` as a user would; returns its exit code and output."""

    def run(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *map(str, words)],
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
            timeout=300,
            check=False,
            **options,
        )

    return run


@pytest.fixture(scope="session")
def made_dataset(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """DATASET of `images`; not to be changed."""
    from pipeline import preprocess
    from pipeline.dataset.manifest import ImageContract
    from pipeline.options import ShardsOptions

    folder = tmp_path_factory.mktemp("made") / "dataset"
    preprocess.run(
        ShardsOptions(
            images=images,
            dataset=folder,
            contract=ImageContract(height=HEIGHT, width=WIDTH),
            shards=2,
            max_reject_fraction=0.1,
            workers=1,
            beam_arguments=["--direct_running_mode=in_memory"],
        )
    )
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, ...]]:
    """Options of Beam for a job service, whose workers have this Python's packages."""
    from services import started

    with started() as options:
        yield options


@pytest.fixture
def dataset(made_dataset: Path, tmp_path: Path) -> Path:
    """A DATASET of one's own, to change or to break."""
    return Path(shutil.copytree(made_dataset, tmp_path / "dataset"))


@pytest.fixture(scope="session", params=["s3", "gs"])
def stores(request: pytest.FixtureRequest) -> Iterator[tuple[str, "servers.Proxy"]]:
    """An object store: its scheme, and the proxy before it."""
    import servers

    from pipeline.storage import object_store

    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        proxy = servers.Proxy()
        stack.callback(proxy.close)
        if request.param == "s3":
            pytest.importorskip("moto.server")
            proxy.upstream = stack.enter_context(servers.s3_server())
            environment = servers.s3_environment(proxy.port)
        else:
            pytest.importorskip("google.cloud.storage")
            if not (binary := servers.gcs_emulator()):
                pytest.skip("no fake-gcs-server: `make gcs-emulator` builds it")
            server = servers.gs_server(binary, named=proxy.port)
            proxy.upstream = stack.enter_context(server)
            environment = servers.gs_environment(proxy.port)
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(object_store, "READ_SECONDS", 1.0)
        patch.setattr(object_store, "_FIRST_WAIT", 0.05)
        patch.setattr(object_store, "_TRIES", 4)
        object_store.client.cache_clear()
        yield request.param, proxy
        object_store.client.cache_clear()


@pytest.fixture
def proxy(stores: tuple[str, "servers.Proxy"]) -> "servers.Proxy":
    """What stands before the store, and can make requests fail."""
    return stores[1]


@pytest.fixture
def bucket(stores: tuple[str, "servers.Proxy"]) -> "ObjectPath":
    """A bucket of one's own, empty."""
    from pipeline.storage.object_paths import ObjectPath

    scheme, name = stores[0], f"tests-{uuid.uuid4().hex[:12]}"
    if scheme == "s3":
        import boto3

        boto3.client("s3").create_bucket(Bucket=name)
    else:
        from google.cloud import storage

        storage.Client().create_bucket(name)
    return ObjectPath(f"{scheme}://{name}")


@pytest.fixture(scope="session")
def tf():
    """TensorFlow with two logical CPUs, which must be set before anything runs."""
    import tensorflow

    (processor,) = tensorflow.config.list_physical_devices("CPU")
    if len(tensorflow.config.get_logical_device_configuration(processor) or ()) != 2:
        tensorflow.config.set_logical_device_configuration(
            processor, [tensorflow.config.LogicalDeviceConfiguration()] * 2
        )
        tensorflow.config.list_logical_devices()  # now nobody can set another number
    return tensorflow


@pytest.fixture(scope="session")
def faults_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that makes reads of a file fail; see testdata/faults.c."""
    if not (compiler := shutil.which("cc")):
        pytest.skip("a read that fails for real needs a C compiler, cc")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    source = REPOSITORY / "tests" / "testdata" / "faults.c"
    words = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(words, check=True)
    return library


@pytest.fixture
def failing(
    faults_library: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Makes reads of a path fail in all processes that are started from now on."""

    def fail(path: object, error: int = errno.EIO, **more: object) -> None:
        monkeypatch.setenv("LD_PRELOAD", str(faults_library))
        for name, value in {"path": path, "errno": error, **more}.items():
            monkeypatch.setenv(f"FAIL_{name.upper()}", str(value))

    return fail
