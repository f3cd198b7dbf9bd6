"""A Flink cluster, started and killed for real; `make test-clusters` runs these.

They need Java with its compiler, and 300 MB of Flink, once. What needs Beam's job
server fails where Maven does not serve it: FLINK_JOB_SERVER=PATH names one.
"""

import functools
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from pipeline import preprocess
from pipeline.dataset.manifest import ImageContract
from pipeline.options import ShardsOptions
from pipeline.runners import flink as flink_engine
from pipeline.runners import flink_rest
from pipeline.shards import finalize
from pipeline.system.errors import RunError
from tests.support.files import REPOSITORY
from tests.support.flink_cluster import __main__ as flink
from tests.support.flink_cluster import distribution
from tests.support.flink_cluster.__main__ import Cluster
from tests.support.flink_cluster.background import BackgroundProcess
from tests.support.photos import write_images

FLINK = Path(os.environ.get("FLINK", REPOSITORY / ".flink"))
SECONDS = 240  # after which something that must happen will not


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def command(verb: str, cluster: Cluster) -> list[str]:
    ports = {name: getattr(cluster, name) for name in ("port", "rpc_port", "pool_port")}
    flags = [f"--{name}={port}" for name, port in ports.items()]
    return [verb, f"--folder={cluster.folder}", "--jar=none", *flags]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """A cluster of our own, beside any other on this machine."""
    folder = tmp_path_factory.mktemp("flink")
    home = distribution.home(FLINK)
    distribution.home_path(folder).symlink_to(home.absolute())
    cluster = Cluster(
        folder, port=free_port(), rpc_port=free_port(), pool_port=free_port()
    )
    yield cluster
    flink.down(cluster)


@pytest.fixture
def running(cluster: Cluster) -> Cluster:
    """The cluster, whole, whatever the test before did to it."""
    assert flink.main(command("up", cluster)) == 0
    return cluster


@functools.cache
def job_server() -> Path:
    if own := os.environ.get("FLINK_JOB_SERVER"):
        return flink_engine.own_job_server(
            Path(own), flink=distribution.short(distribution.FLINK)
        )
    try:
        return distribution.job_server(FLINK)
    except RunError as error:
        pytest.fail(f"no job server of Beam: {error}")


def pids(cluster: Cluster) -> dict[str, int | None]:
    return {daemon.name: daemon.pid for daemon in cluster.daemons()}


def kill_task_manager(cluster: Cluster, number: int) -> None:
    pid = BackgroundProcess(f"taskmanager-{number}", cluster.log_folder).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def states(cluster: Cluster) -> list[str]:
    return list(flink_rest.jobs(cluster.master).values())


def test_all_slots_are_there(running: Cluster) -> None:
    assert flink_rest.config(running.master)["flink-version"] == distribution.FLINK
    assert flink_rest.task_managers(running.master) == {
        "taskmanager-1": 2,
        "taskmanager-2": 2,
    }
    flink_rest.check(running.master, version=distribution.short(distribution.FLINK))


def test_a_job_server_of_another_flink_is_refused(running: Cluster) -> None:
    found = distribution.FLINK
    with pytest.raises(RunError, match=rf"runs Flink {found}, .* made for 1\.20;"):
        flink_rest.check(running.master, version="1.20")


def test_what_a_job_needs_there(running: Cluster) -> None:
    """Where the cluster is here, its pool is, too."""
    options = {
        "flink_master": running.master,
        "flink_version": "2.2",
        "parallelism": 4,
        "environment_type": "EXTERNAL",
        "environment_config": f"localhost:{running.pool_port}",
    }
    flink_engine.FLINK.check(options)
    flink_engine.FLINK.check(options | {"flink_master": f"http://{running.master}"})
    with pytest.raises(RunError, match="has 4 task slots, and the job wants 5"):
        flink_engine.FLINK.check(options | {"parallelism": 5})
    closed = f"localhost:{free_port()}"
    with pytest.raises(RunError, match=f"at --environment_config={closed}: .*refused"):
        flink_engine.FLINK.check(options | {"environment_config": closed})


def test_up_twice_starts_nothing(running: Cluster, capsys) -> None:
    before = pids(running)
    assert flink.main(command("up", running)) == 0
    assert pids(running) == before
    assert "it ran already" in capsys.readouterr().out


def test_it_listens_on_loopback_alone(running: Cluster) -> None:
    own = {os.readlink(path) for pid in pids(running).values() for path in fds(pid)}
    addresses = {
        address
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
        for _, address, _, state, *rest in [line.split()]
        if state == "0A" and f"socket:[{rest[5]}]" in own
    }
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}
    assert {address.partition(":")[0] for address in addresses} <= loopback
    assert len(addresses) >= 6  # REST and RPC, an RPC and data for each task manager


def fds(pid: int | None) -> list[Path]:
    return [path for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]


def test_status_misses_what_was_killed_and_up_replaces_it(
    running: Cluster, capsys
) -> None:
    before = pids(running)
    kill_task_manager(running, 2)
    until(lambda: not pids(running)["taskmanager-2"])
    assert flink.main(command("status", running)) == 1
    said = capsys.readouterr()
    assert "taskmanager-2  is down" in said.out
    assert "1 of 4 processes are down" in said.err
    assert flink.main(command("up", running)) == 0
    after = pids(running)
    assert {name for name in after if after[name] != before[name]} == {"taskmanager-2"}
    assert flink_rest.slots(running.master) == 4
    assert flink.main(command("status", running)) == 0


def test_down_ends_its_own_and_nobody_else(running: Cluster, capsys) -> None:
    names = set(pids(running))
    bystander = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        assert flink.main(command("down", running)) == 0
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    assert set(pids(running).values()) == {None}
    ended = capsys.readouterr().out.splitlines()[-1].removeprefix("ended: ")
    assert set(ended.split(", ")) == names
    with pytest.raises(RunError, match="no Flink cluster answers"):
        flink_rest.slots(running.master)
    assert flink.main(command("down", running)) == 0
    assert capsys.readouterr().out == "nothing runs\n"


@pytest.fixture(scope="module")
def each(tmp_path_factory) -> Path:
    """A jar of Flink's own API: a batch job in the shape of ours."""
    folder = tmp_path_factory.mktemp("each")
    source = REPOSITORY / "tests" / "testdata" / "Each.java"
    libraries = f"{distribution.home_path(FLINK)}/lib/*"
    jar, classes = folder / "each.jar", str(folder / "classes")
    compile_it = ["javac", "-d", classes, "-cp", libraries, str(source)]
    pack = [
        "jar",
        "--create",
        "--file",
        str(jar),
        "--main-class",
        "Each",
        "-C",
        classes,
    ]
    subprocess.run(compile_it, check=True)
    subprocess.run([*pack, "."], check=True)
    return jar


def submit(cluster: Cluster, jar: Path, *words: object) -> None:
    """Has a job of `each` run on all slots."""
    client = [str(cluster.home / "bin" / "flink"), "run", "--detached"]
    where = ["-m", cluster.master, "-p", str(cluster.task_managers * cluster.slots)]
    subprocess.run(
        [*client, *where, str(jar), *map(str, words)],
        env=cluster.environment(),
        check=True,
    )


def finish(cluster: Cluster) -> None:
    """Waits for the latest job; it must not fail."""
    until(lambda: states(cluster)[-1] not in ("CREATED", "RUNNING", "RESTARTING"))
    assert states(cluster)[-1] == "FINISHED"


def test_a_job_outlives_a_task_manager(
    running: Cluster, each: Path, tmp_path: Path
) -> None:
    """Both task managers work; one of them is killed; every file is there, once."""
    count, made, nap = 80, tmp_path / "made", tmp_path / "nap"
    made.mkdir()
    nap.write_text(
        f'sleep 0.2; echo $PPID > "{made}/.$1-$$"; mv "{made}/.$1-$$" "{made}/$1"\n'
    )
    submit(running, each, count, "bash", nap)
    until(lambda: len({path.read_text() for path in written(made)}) == 2)
    assert len(written(made)) < count
    kill_task_manager(running, 1)
    finish(running)
    assert {path.name for path in written(made)} == {
        str(number) for number in range(1, count + 1)
    }


def written(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    images = tmp_path_factory.mktemp("photos") / "images"
    write_images(images)
    return images


def shards(images: Path, dataset: Path, *words: str) -> list[str]:
    """The command that makes a dataset; the two broken photos are allowed."""
    flags = ("--height=32", "--width=40", "--shards=8", "--max_reject_fraction=0.1")
    return [
        *(sys.executable, "-m", "pipeline", "shards", f"--images={images}"),
        *(f"--dataset={dataset}", *flags, *words),
    ]


def on_flink(cluster: Cluster, *environment: str) -> list[str]:
    return [
        "--runner=flink",
        "--",
        f"--flink_master={cluster.master}",
        f"--flink_job_server_jar={job_server().absolute()}",
        f"--parallelism={cluster.task_managers * cluster.slots}",
        *environment,
    ]


def run(words: list[str]) -> None:
    done = subprocess.run(
        words, cwd=REPOSITORY, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr


def checksums(dataset: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in dataset.iterdir()
    }


@pytest.fixture(scope="module")
def locally(photos: Path, tmp_path_factory) -> dict[str, str]:
    """The checksums of what the local runner makes."""
    dataset = tmp_path_factory.mktemp("locally") / "dataset"
    run(shards(photos, dataset))
    return checksums(dataset)


SHARD = """
import json, sys
from pathlib import Path
from pipeline.runners import remote_shards
from pipeline.dataset.manifest import ImageContract

dataset, number = sys.argv[1:]
planned = json.loads(Path(dataset, "_work", "outset.json").read_text())["planned"]
contract = ImageContract(height=32, width=40)
name, _ = planned[int(number) - 1]
remote_shards.write_in_worker(
    name, folder=dataset, contract=contract, image_timeout=60
)
"""


def test_our_shards_outlive_a_task_manager(
    running: Cluster,
    each: Path,
    photos: Path,
    tmp_path: Path,
    locally: dict[str, str],
    monkeypatch,
) -> None:
    """What a worker of ours does, on Flink without Beam: no job server is needed.

    Processes of the task manager that was killed go on, beside those of its heir.
    """
    program = tmp_path / "shard.py"
    program.write_text(SHARD)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    flink.down(running)  # so that its processes find our package
    flink.up(running, "none")

    class OnFlink:
        def __init__(self, **_: object) -> None:
            pass

        def write(self, dataset: Path, planned: Mapping[str, int], _: object) -> None:
            command = (sys.executable, program, dataset)
            submit(running, each, len(planned), *command)
            until(lambda: len(list(dataset.glob("*.tfrecord"))) > 3)
            assert len(list(dataset.glob("*.tfrecord"))) < len(planned)
            kill_task_manager(running, 1)
            finish(running)
            finalize.complete(dataset)

    monkeypatch.setattr(preprocess, "Crew", OnFlink)
    dataset = tmp_path / "dataset"
    preprocess.run(
        ShardsOptions(
            images=photos,
            dataset=dataset,
            contract=ImageContract(height=32, width=40),
            shards=8,
            max_reject_fraction=0.1,
            workers=1,
        )
    )
    assert checksums(dataset) == locally


@pytest.mark.parametrize("environment", ["LOOPBACK", "EXTERNAL"])
def test_a_dataset_made_on_flink_is_the_same(
    running: Cluster,
    photos: Path,
    tmp_path: Path,
    locally: dict[str, str],
    environment: str,
) -> None:
    words = [f"--environment_type={environment}"]
    if environment == "EXTERNAL":
        words.append(f"--environment_config=localhost:{running.pool_port}")
    dataset = tmp_path / "dataset"
    run(shards(photos, dataset, *on_flink(running, *words)))
    assert checksums(dataset) == locally
    assert states(running)[-1] == "FINISHED"


def test_a_dataset_outlives_a_task_manager(
    running: Cluster, photos: Path, tmp_path: Path, locally: dict[str, str]
) -> None:
    """It is killed once something is committed; nothing is lost or doubled."""
    pool = f"--environment_config=localhost:{running.pool_port}"
    words = on_flink(running, "--environment_type=EXTERNAL", pool)
    dataset = tmp_path / "dataset"
    with subprocess.Popen(shards(photos, dataset, *words), cwd=REPOSITORY) as job:
        until(lambda: job.poll() is not None or any(dataset.glob("*.tfrecord")))
        kill_task_manager(running, 1)
        assert job.wait(SECONDS) == 0
    assert checksums(dataset) == locally
    assert states(running)[-1] == "FINISHED"
