"""Whole programs on object stores: IMAGES, DATASET and PREDICTIONS in s3:// and gs://."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from pipeline import additions, preprocess, verify
from pipeline.dataset import manifest, shard_cache, sidecar
from pipeline.dataset.manifest import Dataset, ImageContract
from pipeline.images import conversion
from pipeline.options import RetryOptions, ShardsOptions
from pipeline.runners import remote_shards
from pipeline.shards import plan
from pipeline.sources.listing import ImageRef
from pipeline.storage import atomic
from pipeline.storage.object_paths import AnyPath, ObjectPath
from pipeline.storage.resumable_folder import ResumableFolder
from pipeline.system.errors import RunError
from tests.support.defects import DEFECT
from tests.support.files import REPOSITORY, tree
from tests.support.job_service import started
from tests.support.object_servers import ENVIRONMENTS, Proxy, put_tree, s3_environment
from tests.support.photos import HEIGHT, WIDTH, jpeg, photo
from tests.support.predictions import make_model
from tests.support.processes import Program

SIZE = (f"--height={HEIGHT}", f"--width={WIDTH}", "--shards=2")
SHARDS = (*SIZE, "--max_reject_fraction=0.1", "--workers=2")


def get_tree(source: ObjectPath, folder: Path) -> Path:
    """Copies what is below a prefix to a folder."""
    for path in source.walk_files():
        target = folder / str(path).removeprefix(f"{source}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder of one's own, where logs of remote datasets go."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run(program: Program, here: Path, tmp_path: Path) -> Program:
    """Runs a program as a user would, whose temporary files are seen."""
    (tmp_path / "tmp").mkdir()

    def run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *map(str, words)],
            capture_output=True,
            text=True,
            cwd=here,
            env=os.environ
            | {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path / "tmp")}
            | environment,
            timeout=300,
            check=False,
        )

    return run


@pytest.mark.slow
def test_the_whole_job_in_a_store(
    images: Path, made_dataset: Path, bucket: ObjectPath, run: Program, tmp_path: Path
) -> None:
    remote = put_tree(images, bucket / "images")
    dataset, predictions = bucket / "made" / "dataset", bucket / "predictions"
    model = tmp_path / "model"
    result = run("pipeline", f"--images={remote}", f"--dataset={dataset}", *SHARDS)
    assert result.returncode == 0, result.stderr
    assert tree(get_tree(dataset, tmp_path / "copy")) == tree(made_dataset)
    assert (tmp_path / "here" / "dataset.log").is_file()
    again = run("pipeline", f"--images={images}", f"--dataset={dataset}", *SHARDS)
    assert "is complete already" in again.stdout
    result = run("pipeline", "verify", f"--dataset={dataset}")
    assert result.returncode == 0, result.stderr

    result = run(
        *("trainer", f"--dataset={dataset}", f"--model={model}", "--recipe=demo"),
        *("--weights=none", "--epochs=1", "--batch_size=8", "--cache=none"),
    )
    assert result.returncode == 0, result.stderr
    assert "shards are fetched to" in result.stdout
    for out in (predictions, tmp_path / "predictions"):
        source = dataset if out is predictions else made_dataset
        result = run(
            *("predictor", f"--model={model}", f"--dataset={source}"),
            *(f"--predictions={out}", "--batch_size=4"),
        )
        assert result.returncode == 0, result.stderr
    copy = get_tree(predictions, tmp_path / "predicted")
    assert tree(copy) == tree(tmp_path / "predictions")
    result = run(
        *("predictor", "verify", f"--predictions={predictions}"),
        *(f"--dataset={dataset}", f"--model={model}"),
    )
    assert result.returncode == 0, result.stderr
    result = run(
        *("predictor", "evaluate", f"--model={model}", f"--dataset={dataset}"),
        *("--split=validation", f"--evaluation={tmp_path / 'evaluation'}"),
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_a_killed_run_goes_on(
    images: Path,
    made_dataset: Path,
    bucket: ObjectPath,
    here: Path,
    run: Program,
    tmp_path: Path,
) -> None:
    dataset = bucket / "dataset"
    words = ["pipeline", f"--images={images}", f"--dataset={dataset}", *SHARDS]
    words[-1:] = ["--workers=1"]
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=here,
        env=os.environ
        | {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path / "tmp")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not list((dataset / "_work" / "done").iterdir()):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = atomic.temporary_name(dataset / "_work", "upload")
    (tmp_path / "tmp" / f"{left}x").mkdir()  # if it was uploading just then
    done = {path.name for path in (dataset / "_work" / "done").iterdir()}
    assert not (dataset / "dataset.json").exists()
    result = run(*words)
    assert result.returncode == 0, result.stderr
    assert f"going on: {len(done)} of 6 shards are committed" in result.stdout
    assert list((tmp_path / "tmp").glob("vgg16-*")) == []
    assert tree(get_tree(dataset, tmp_path / "copy")) == tree(made_dataset)


@pytest.mark.slow
def test_a_worker_says_what_the_store_does(
    images: Path,
    made_dataset: Path,
    bucket: ObjectPath,
    proxy: Proxy,
    here: Path,
    run: Program,
    tmp_path: Path,
) -> None:
    dataset = bucket / "dataset"
    words = ["pipeline", f"--images={images}", f"--dataset={dataset}", *SHARDS]
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=here,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(list((dataset / "_work" / "plan").iterdir())) < 6:
        assert process.poll() is None
        time.sleep(0.02)
    with proxy.failing("error", method="P"):
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"error: cannot write {dataset}/" in said
    assert not (dataset / "dataset.json").exists()
    result = run(*words)
    assert result.returncode == 0, result.stderr
    assert tree(get_tree(dataset, tmp_path / "copy")) == tree(made_dataset)


@pytest.fixture(scope="module")
def cluster(store_server: tuple[str, Proxy]) -> Iterator[tuple[str, ...]]:
    """As elsewhere; its workers know of the store."""
    with started() as options:
        yield options


@pytest.fixture(scope="module")
def model(tf, tmp_path_factory: pytest.TempPathFactory, made_dataset: Path) -> Path:
    """MODEL of an untrained network; not to be changed."""
    return make_model(tmp_path_factory.mktemp("made"), made_dataset, seed=1)


@pytest.mark.slow
def test_workers_of_a_job_service_write_the_same_bytes(
    cluster: tuple[str, ...],
    images: Path,
    made_dataset: Path,
    model: Path,
    bucket: ObjectPath,
    run: Program,
    tmp_path: Path,
) -> None:
    """Nothing is on a disk that launcher and workers share, not even the model."""
    there = ("--runner=PortableRunner", "--", *cluster)
    remote, dataset = put_tree(images, bucket / "images"), bucket / "dataset"
    words = ["pipeline", f"--images={remote}", f"--dataset={dataset}", *SHARDS, *there]
    result = run(*words)
    assert result.returncode == 0, result.stderr
    assert "42 images listed = 40 written + 2 rejected" in result.stdout
    assert tree(get_tree(dataset, tmp_path / "dataset")) == tree(made_dataset)
    assert "is complete already" in run(*words).stdout

    made, cache = tmp_path / "predictions", tmp_path / "cache"
    remote_model = put_tree(model, bucket / "model")
    for of, source, out, *more in (
        (model, made_dataset, made, "--cpu"),
        (
            *(remote_model, dataset, bucket / "predictions"),
            *(f"--shard_cache={cache}", *there),
        ),
    ):
        words = ["predictor", f"--model={of}", f"--dataset={source}"]
        result = run(*words, f"--predictions={out}", *more)
        assert result.returncode == 0, result.stderr
    assert tree(get_tree(bucket / "predictions", tmp_path / "copy")) == tree(made)
    assert len(list(cache.glob("*/*"))) == 2  # by the workers


@pytest.mark.slow
def test_photos_of_a_store_are_predicted(
    images: Path, bucket: ObjectPath, model: Path, tmp_path: Path
) -> None:
    from predictor import predict
    from predictor.format.file_format import Format
    from predictor.options import PredictionRequest, PredictOptions

    remote = put_tree(images / "test", bucket / "photos")
    for source, out in (
        (remote, bucket / "predictions"),
        (images / "test", tmp_path / "predictions"),
    ):
        order = PredictionRequest(
            model=model,
            folder=out,
            images=source,
            format=Format(),
            max_reject_fraction=1,
        )
        predict.run(PredictOptions(request=order, cpu=True))
    copy = get_tree(bucket / "predictions", tmp_path / "copy")
    assert tree(copy) == tree(tmp_path / "predictions")
    order = PredictionRequest(
        model=model, folder=bucket / "predictions", images=remote, format=Format()
    )
    predict.run(PredictOptions(request=order, cpu=True))


def make(images: AnyPath, dataset: AnyPath) -> None:
    """As `made_dataset`, in this process."""
    preprocess.run(
        ShardsOptions(
            images=images,
            dataset=dataset,
            contract=ImageContract(height=HEIGHT, width=WIDTH),
            shards=2,
            max_reject_fraction=0.1,
            workers=1,
        )
    )


def test_a_dataset_in_a_store(
    images: Path,
    made_dataset: Path,
    bucket: ObjectPath,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    remote = put_tree(images, bucket / "images")
    make(remote, bucket / "dataset")
    assert tree(get_tree(bucket / "dataset", tmp_path / "copy")) == tree(made_dataset)
    assert "images listed" in (tmp_path / "dataset.log").read_text()
    verify.run(bucket / "dataset", workers=1)


def test_a_dataset_in_a_store_grows(
    images: Path, bucket: ObjectPath, here: Path, tmp_path: Path
) -> None:
    """As one of files does, to the byte: an append, then a retry."""
    root = Path(shutil.copytree(images, tmp_path / "images"))
    remote, local = bucket / "dataset", tmp_path / "dataset"
    for dataset in (remote, local):
        make(root, dataset)
    (root / "train" / "new").mkdir()
    shutil.copy(root / "train/red/00.jpg", root / "train/new/00.jpg")
    (root / "train/new/bad.jpg").write_bytes(b"no photo")
    settings: dict[str, Any] = {"max_reject_fraction": 0.5, "workers": 1, "shards": 2}
    contract = ImageContract(height=HEIGHT, width=WIDTH)
    for dataset in (remote, local):
        additions.append(
            ShardsOptions(
                images=root,
                dataset=dataset,
                contract=contract,
                append=True,
                **settings,
            )
        )
    shutil.copy(root / "train/red/01.jpg", root / "train/new/bad.jpg")
    for dataset in (remote, local):
        additions.retry(RetryOptions(dataset=dataset, images=root, workers=1))
    assert tree(get_tree(remote, tmp_path / "copy")) == tree(local)
    assert (local / "train-g02-00000-of-00001.tfrecord").is_file()
    verify.run(remote, workers=1)


def test_a_damaged_dataset_in_a_store(
    made_dataset: Path, bucket: ObjectPath, tmp_path: Path
) -> None:
    dataset = put_tree(made_dataset, bucket / "dataset")
    victim = dataset / "train-00001-of-00002.tfrecord"
    (tmp_path / "cut").write_bytes(victim.read_bytes()[:-5])
    victim.upload(tmp_path / "cut")
    with pytest.raises(RunError, match=f"shard {victim} has .* promises"):
        manifest.load(dataset)
    victim.unlink()
    with pytest.raises(RunError, match=f"shard {victim} is missing"):
        manifest.load(dataset)


@pytest.mark.slow
def test_a_store_that_fails_for_a_while_costs_nothing(
    images: Path,
    made_dataset: Path,
    bucket: ObjectPath,
    proxy: Proxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with proxy.failing("reset", times=2):
        make(images, bucket / "dataset")
    assert tree(get_tree(bucket / "dataset", tmp_path / "copy")) == tree(made_dataset)


def test_a_store_that_fails_for_ever_ends_the_run(
    images: Path,
    bucket: ObjectPath,
    proxy: Proxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is complete that is not whole; the same command then goes on."""
    monkeypatch.chdir(tmp_path)
    dataset = bucket / "dataset"
    with (
        proxy.failing("cut_up", method="P"),
        pytest.raises(RunError, match=r"cannot write .* run the same command again"),
    ):
        make(images, dataset)
    assert not list(dataset.walk_files())
    make(images, dataset)
    assert (dataset / "dataset.json").is_file()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """The folder that shards are fetched to."""
    shard_cache.cache_at(tmp_path / "cache", 10**9)
    yield tmp_path / "cache"
    shard_cache.cache_at(None, None)


def test_training_reads_what_was_fetched(
    tf, made_dataset: Path, bucket: ObjectPath, cache: Path
) -> None:
    from trainer.data import input_pipeline as data

    local = manifest.load(made_dataset)
    remote = manifest.load(put_tree(made_dataset, bucket / "dataset"))
    assert remote.fingerprint == local.fingerprint

    def some(dataset: Dataset) -> list[bytes]:
        batches = data.for_training(dataset, batch_size=4, seed=1).take(8)
        return [images.tobytes() for images, _ in batches.as_numpy_iterator()]

    assert some(remote) == some(local)
    shards = local.split("train").shards
    assert {path.stem for path in cache.glob("*/*")} == {one.sha256 for one in shards}


def test_training_says_what_the_store_does(
    tf, made_dataset: Path, bucket: ObjectPath, cache: Path, proxy: Proxy
) -> None:
    from trainer.data import input_pipeline as data
    from trainer.data.verified_shards import naming_damage

    remote = manifest.load(put_tree(made_dataset, bucket / "dataset"))
    batches = data.for_training(remote, batch_size=4, seed=1)
    with (
        proxy.failing("error"),
        pytest.raises(RunError, match=r"cannot look at .* tried 4 times"),
        naming_damage(remote),
    ):
        next(iter(batches))


def test_one_listing_tells_which_shards_are_done(
    made_dataset: Path, bucket: ObjectPath, proxy: Proxy
) -> None:
    names = [f"train-{index:05d}-of-00040.tfrecord" for index in range(40)]
    output = ResumableFolder(bucket, manifest="m")
    assert output.start({"version": 1}) is False
    for name in names[:2]:
        with output.commit(name) as file:
            file.write(b"x")
        output.done(name, {"part": name})
    proxy.requests.clear()
    notes = output.notes(names)
    assert len(proxy.requests) == 4  # two listings, and two that are done
    assert [name for name in names if notes[name]] == names[:2]
    assert notes[names[0]] == output.note(names[0]) == {"part": names[0]}
    with output.commit(names[1]) as file:
        file.write(b"another length")
    assert output.notes(names)[names[1]] is None


def test_a_folder_of_a_store_is_started_and_ended(bucket: ObjectPath) -> None:
    output = ResumableFolder(bucket / "out", manifest="m.json")
    assert output.start({"version": 1}) is False
    with pytest.raises(RunError, match=f"{bucket}/out belongs to another run: version"):
        output.start({"version": 2})
    output.write_text("a.txt", "a")
    output.finish({"version": 1})
    assert [path.name for path in (bucket / "out").iterdir()] == ["a.txt", "m.json"]
    assert output.start({"version": 1}) is True
    output.clear("*.txt")
    assert not (bucket / "out").exists()
    atomic.write_text(bucket / "out" / "mine", "")
    with pytest.raises(RunError, match="is not empty"):
        output.start({"version": 1})


def test_a_crash_of_a_guarded_process_costs_an_image(
    bucket: ObjectPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photos and dataset are in a store; support/defects.py says what DEFECT is."""
    (tmp_path / "sitecustomize.py").write_text(DEFECT)
    monkeypatch.syspath_prepend(tmp_path)  # and so to that of children
    refs = []
    for index, more in enumerate((b"", b"CRASH-ME", b"")):
        path = bucket / "photos" / f"{index}.jpg"
        with atomic.commit(path) as file:
            file.write(jpeg(photo(0, index)) + more)
        refs.append(ImageRef(path.name, str(path), "a", "train"))
    dataset = bucket / "dataset"
    folder = ResumableFolder(dataset, manifest=manifest.MANIFEST)
    folder.start({"versions": conversion.versions()})
    (name,) = plan.write_plan(dataset, {"train": [refs]}, ["a"])
    contract = ImageContract(height=HEIGHT, width=WIDTH)
    remote_shards.pool.cache_clear()  # its children began without the defect
    remote_shards.write_in_worker(
        name, folder=str(dataset), contract=contract, image_timeout=60
    )
    note = sidecar.read_note(dataset, name)
    assert note.tally.written == {"a": 2}
    assert note.tally.rejects == [["1.jpg", "a", "decoder_crash", "SIGSEGV"]]
    assert len(list((dataset / "_work" / "workers").iterdir())) == 1


def refused(program: Program, *words: object, **environment: str) -> str:
    """What a program says when it ends with exit code 1, and no traceback."""
    result = program(*words, env=os.environ | environment)
    assert result.returncode == 1, result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_no_such_bucket(
    program: Program, images: Path, bucket: ObjectPath, tmp_path: Path
) -> None:
    scheme = str(bucket).partition(":")[0]
    gone = f"{scheme}://no-such-bucket/a"
    for words in (
        (f"--images={gone}", f"--dataset={tmp_path / 'dataset'}"),
        (f"--images={images}", f"--dataset={gone}"),
        ("verify", f"--dataset={gone}"),
    ):
        said = refused(program, "pipeline", *words)
        assert "there is no bucket 'no-such-bucket'" in said
        assert "make it: `" in said


def test_no_credentials(program: Program, tmp_path: Path) -> None:
    """No role is found either: what asks the machine for one is sent elsewhere."""
    names = [name for one in ENVIRONMENTS.values() for name in one(9)]
    nowhere = {
        "HOME": str(tmp_path),
        "AWS_EC2_METADATA_DISABLED": "true",
        "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "gone.json"),
    }
    environment = {k: v for k, v in os.environ.items() if k not in names} | nowhere
    for uri, advice in (
        ("s3://bucket/a", "Give credentials as for the AWS command line: "),
        ("gs://bucket/a", "Give credentials: `gcloud auth application-default login`"),
        ("az://bucket/a", "Give credentials: AZURE_STORAGE_ACCOUNT_NAME, and"),
    ):
        result = program("pipeline", "verify", f"--dataset={uri}", env=environment)
        assert result.returncode == 1
        assert advice in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("uri", "package"),
    [
        ("s3://bucket/a", "botocore"),
        ("gs://bucket/a", "obstore"),
        ("az://b", "obstore"),
    ],
)
def test_an_extra_that_is_not_installed(
    program: Program, tmp_path: Path, uri: str, package: str
) -> None:
    missing = f"raise ModuleNotFoundError('gone', name={package!r})"
    (tmp_path / f"{package}.py").write_text(missing)
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    words = ("pipeline", "verify", f"--dataset={uri}")
    said = refused(program, *words, PYTHONPATH=path, PYTHONSAFEPATH="1")
    assert f"({package}): `pip install 'vgg16-at-scale[stores]'`" in said


def test_a_store_that_cannot_be_reached(program: Program) -> None:
    said = refused(
        program,
        *("pipeline", "verify", "--dataset=s3://bucket/a"),
        **(s3_environment(9)),
    )
    assert "cannot list s3://bucket/a: Error performing GET" in said
    assert "(Connection refused). It was tried" in said
    assert "run the same command again" in said


def test_local_runs_load_no_client(images: Path) -> None:
    script = """
import sys
from pathlib import Path
from typing import Any
from pipeline import additions, preprocess, verify
from pipeline.sources import layout
layout.list_images(Path(sys.argv[1]))
print(sorted({"obstore", "botocore", "apache_beam"} & set(sys.modules)))
"""
    result = subprocess.run(
        [sys.executable, "-c", script, images],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    assert result.stdout == "[]\n"


def test_a_split_is_evaluated_by_reading_it_once(
    made_dataset: Path, bucket: ObjectPath, proxy: Proxy, tmp_path: Path
) -> None:
    """For its labels, and for the pictures of mistakes."""
    import numpy as np

    from pipeline.dataset import shard_cache
    from predictor import evaluate
    from predictor.format.file_format import Format
    from predictor.inputs.inputs import records
    from tests.support.predictions import write_predictions

    local = manifest.load(made_dataset)
    shards = local.split("validation").shards
    ids = [[stored.id for stored in records(local, shard)] for shard in shards]
    parts = [(some, np.eye(3, dtype=np.float32)[[0] * len(some)]) for some in ids]
    given = {"dataset": local.fingerprint, "split": "validation"}
    folder = write_predictions(tmp_path / "p", Format(), local.classes, parts, **given)
    remote = put_tree(made_dataset, bucket / "dataset")
    shard_cache.cache_at(tmp_path / "cache", None)
    proxy.requests.clear()
    evaluate.run(
        tmp_path / "evaluation",
        dataset=remote,
        model=None,
        split="validation",
        predictions=folder,
        labels=None,
    )
    read = [
        request
        for request in proxy.requests
        if request.startswith("GET") and "validation-" in unquote(request)
    ]
    assert len(read) == len(shards)
    page = (tmp_path / "evaluation" / "evaluation.html").read_text()
    assert page.count("data:image/jpeg") > 0
