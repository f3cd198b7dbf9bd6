"""Shared fixtures: small photos, a small collection, its dataset."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.files import REPOSITORY
from tests.support.made_once import made_once
from tests.support.photos import HEIGHT, WIDTH, jpeg, photo, write_images
from tests.support.processes import Program

if TYPE_CHECKING:
    from pipeline.storage.object_paths import ObjectPath
    from tests.support import object_servers
    from tests.support.html_pages import Browser

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
# Several processes of pytest share the cores.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "2")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")
# In the background of a shell it would be ignored, by every program started here, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks whole programs, stores, Beam's job service, and real engines."""
    for item in items:
        folder = item.path.relative_to(REPOSITORY / "tests").parts[0]
        wanted = {*getattr(item, "fixturenames", ())}
        if folder == "clusters":
            item.add_marker("clusters")
        elif item.path.name != "test_whole_job.py" and (
            folder == "end_to_end" or wanted & {"program", "store_server", "cluster"}
        ):
            item.add_marker("integration")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root of split folders; not to be changed."""
    return made_once(tmp_path_factory, "images", write_images)


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

    def make(folder: Path) -> None:
        preprocess.run(
            ShardsOptions(
                images=images,
                dataset=folder,
                contract=ImageContract(height=HEIGHT, width=WIDTH),
                shards=2,
                max_reject_fraction=0.1,
                workers=1,
            )
        )

    return made_once(tmp_path_factory, "dataset", make)


@pytest.fixture
def browser(tmp_path: Path) -> "Browser":
    """A browser; without one the test is skipped."""
    from tests.support.html_pages import Browser

    folder = tmp_path / "browser"
    folder.mkdir()
    return Browser(folder)


@pytest.fixture(scope="session")
def grown_dataset(
    tmp_path_factory: pytest.TempPathFactory, images: Path, made_dataset: Path
) -> Path:
    """`made_dataset` with photos more, and two more classes; not to be changed."""
    from pipeline import additions
    from pipeline.dataset.manifest import ImageContract
    from pipeline.options import ShardsOptions

    def make(folder: Path) -> None:
        photos = tmp_path_factory.mktemp("more") / "photos"
        shutil.copytree(images, photos)
        for label, name in enumerate(("red", "aqua", "zinc")):
            (photos / "train" / name).mkdir(exist_ok=True)
            for index in range(6):
                data = jpeg(photo(label, 7000 + 10 * label + index))
                (photos / "train" / name / f"new {index}.jpg").write_bytes(data)
        shutil.copytree(made_dataset, folder)
        additions.append(
            ShardsOptions(
                images=photos,
                dataset=folder,
                contract=ImageContract(height=HEIGHT, width=WIDTH),
                max_reject_fraction=0.1,
                workers=1,
                append=True,
            )
        )

    return made_once(tmp_path_factory, "grown dataset", make)


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, ...]]:
    """Options of Beam for a job service, whose workers have this Python's packages."""
    from tests.support.job_service import started

    with started() as options:
        yield options


@pytest.fixture
def dataset(made_dataset: Path, tmp_path: Path) -> Path:
    """A DATASET of one's own, to change or to break."""
    return Path(shutil.copytree(made_dataset, tmp_path / "dataset"))


@pytest.fixture(scope="session", params=["s3", "gs", "az"])
def store_server(
    request: pytest.FixtureRequest,
) -> Iterator[tuple[str, "object_servers.Proxy"]]:
    """An object store: its scheme, and the proxy before it."""
    from pipeline.storage import object_store
    from tests.support import object_servers

    if request.param == "az" and not object_servers.azurite():
        pytest.skip("no Azurite: `make store-emulators` installs it")
    with (
        object_servers.store(request.param) as proxy,
        pytest.MonkeyPatch.context() as patch,
    ):
        environment = object_servers.ENVIRONMENTS[request.param](proxy.port)
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(object_store, "READ_SECONDS", 1.0)
        patch.setattr(object_store, "_FIRST_WAIT", 0.05)
        patch.setattr(object_store, "_TRIES", 4)
        object_store.bucket.cache_clear()
        yield request.param, proxy
        object_store.bucket.cache_clear()


@pytest.fixture
def proxy(store_server: tuple[str, "object_servers.Proxy"]) -> "object_servers.Proxy":
    """What stands before the store, and can make requests fail."""
    return store_server[1]


@pytest.fixture
def bucket(store_server: tuple[str, "object_servers.Proxy"]) -> "ObjectPath":
    """A bucket of one's own, empty."""
    from pipeline.storage.object_paths import ObjectPath
    from tests.support import object_servers

    scheme, name = store_server[0], f"tests{uuid.uuid4().hex[:12]}"
    object_servers.make_bucket(scheme, name, store_server[1].upstream)
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
