"""`--extend` and `--weights`: what a run begins with."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset import manifest
from pipeline.system.errors import RunError
from tests.support.files import tree
from tests.support.photos import HEIGHT, WIDTH
from tests.support.processes import Program
from tests.support.small_network import small_convolutions
from tests.support.training import SHORT, strategy_of

RELEASE_01 = Path(__file__).parents[1] / "testdata/release-0.1/finished/model"
Run = Callable[..., None]


@pytest.fixture(scope="module", autouse=True)
def small_network(tf) -> Iterator[None]:
    with small_convolutions():
        yield


@pytest.fixture(scope="module")
def base(
    run: Run, made_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """MODEL of three classes; not to be changed."""
    folder = tmp_path_factory.mktemp("base") / "model"
    run(made_dataset, folder, epochs=2)
    return folder


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "base"))


@pytest.fixture
def stopped_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that is stopped before its first step."""
    from trainer import train

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    def until_then(*arguments: object, **options: object) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(train._Run, "_train_epoch", stop)
            with pytest.raises(KeyboardInterrupt):
                run(*arguments, **options)

    return until_then


def by_name(network) -> dict[str, np.ndarray]:
    return {
        f"{layer.name}/{weight.name}": weight.numpy()
        for layer in network.layers
        for weight in layer.weights
    }


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    import keras

    return by_name(keras.models.load_model(folder / "model.keras"))


def first_weights(folder: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The weights of the state of a run that has not begun to train."""
    from trainer.training import checkpoint

    path = folder / "checkpoint/state.npz"
    state = checkpoint.read(path)
    assert state
    assert (state.epoch, state.trained.steps) == (0, 0)
    with np.load(path) as arrays:
        return {name: arrays[name] for name in names}


# ------------------------------------------------------------------------ extend


def test_at_the_first_step_the_old_columns_are_the_old_ones(
    stopped_at_once: Run, base: Path, grown_dataset: Path, tmp_path: Path
) -> None:
    """The new ones are those of a run from random weights with the same seed."""
    before = tree(base)
    stopped_at_once(grown_dataset, tmp_path / "extended", extend=base)
    stopped_at_once(grown_dataset, tmp_path / "random")
    old = weights_of(base)
    found = first_weights(tmp_path / "extended", old)
    fresh = first_weights(tmp_path / "random", old)
    assert found["probabilities/kernel"].shape[-1] == 5
    for name, value in found.items():
        if name.startswith("probabilities/"):
            np.testing.assert_array_equal(value[..., :3], old[name])
            np.testing.assert_array_equal(value[..., 3:], fresh[name][..., 3:])
        else:
            np.testing.assert_array_equal(value, old[name])
    assert np.any(old["normalization/moving_mean"])
    assert not np.array_equal(
        fresh["probabilities/kernel"][:, :3], old["probabilities/kernel"]
    )
    with np.load(tmp_path / "extended/checkpoint/state.npz") as arrays:
        slots = {*arrays.files} - found.keys() - {"state"}
        slots = {name for name in slots if not name.startswith("dropout/")}
        assert len(slots) > len(found) / 2
        for name in slots:
            assert name.endswith("learning_rate") or not np.any(arrays[name]), name
    assert tree(base) == before


def test_all_replicas_get_them(tf, base: Path) -> None:
    from trainer import model, starting_weights

    strategy = strategy_of(2)
    with strategy.scope():
        network = model.build(
            height=HEIGHT, width=WIDTH, classes=5, weights="none", recipe=SHORT
        )
    starting_weights.extend(network, base)
    kernel = network.get_layer("probabilities").kernel
    found = strategy.experimental_local_results(kernel.value)
    assert len(found) == 2
    for each in found:
        old = weights_of(base)["probabilities/kernel"]
        np.testing.assert_array_equal(each.numpy()[:, :3], old)


def test_it_goes_on_to_the_same_weights(
    run: Run, stopped_at_once: Run, base: Path, grown_dataset: Path, tmp_path: Path
) -> None:
    """Also where MODEL has moved away, once the state is saved."""
    before = tree(base)
    run(grown_dataset, tmp_path / "whole", extend=base)
    copy = Path(shutil.copytree(base, tmp_path / "base"))
    folder = tmp_path / "stopped"
    stopped_at_once(grown_dataset, folder, extend=copy)
    moved = copy.rename(tmp_path / "moved")
    run(grown_dataset, folder, epochs=1, extend=moved)
    shutil.rmtree(moved)
    run(grown_dataset, folder, epochs=3, extend=moved)
    found, expected = weights_of(folder), weights_of(tmp_path / "whole")
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    value = json.loads((folder / "model.json").read_text())
    assert value["run"]["extend"].startswith("sha256:")
    assert value["run"]["weights"] is None
    assert value["classes"]["count"] == 5
    assert tree(base) == before


def test_classes_of_the_same_number(
    run: Run, base: Path, made_dataset: Path, tmp_path: Path
) -> None:
    """As where images of old classes were added."""
    run(made_dataset, tmp_path / "model", epochs=1, extend=base)
    old = json.loads((base / "model.json").read_text())["last"]["loss"]
    new = json.loads((tmp_path / "model/model.json").read_text())["last"]["loss"]
    assert new < old


@pytest.mark.parametrize("finished", [True, False])
def test_another_resume_is_refused(
    run: Run, base: Path, copy: Path, grown_dataset: Path, tmp_path: Path, finished
) -> None:
    folder = tmp_path / "model"
    run(grown_dataset, folder, epochs=1, extend=base)
    if not finished:
        (folder / "model.json").unlink()
    with pytest.raises(RunError, match=r"extend is sha256:.* there and None here"):
        run(grown_dataset, folder, epochs=2)
    other = tmp_path / "other"
    run(grown_dataset, other, epochs=1, seed=4)
    with pytest.raises(RunError, match=r"extend is sha256:.* there and sha256:"):
        run(grown_dataset, folder, epochs=2, extend=other)
    with pytest.raises(RunError, match=r"extend is None there and sha256:"):
        run(grown_dataset, other, epochs=2, seed=4, extend=base)
    run(grown_dataset, folder, epochs=2, extend=copy)


def test_model_alone_is_enough(
    run: Run, copy: Path, grown_dataset: Path, tmp_path: Path
) -> None:
    """Without checkpoint, history and snapshots; and nobody may write to it."""
    for path in copy.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in {"model.keras", "model.json", "classes.txt"}:
            path.unlink()
    before = tree(copy)
    run(grown_dataset, tmp_path / "model", epochs=1, extend=copy)
    assert tree(copy) == before
    assert len(before) == 3


def with_classes(dataset: Path, *names: str) -> None:
    """Gives the classes of a DATASET other names, in its lists alone."""
    text = "".join(f"{name}\n" for name in names)
    (dataset / "classes.txt").write_text(text)
    value = json.loads((dataset / "dataset.json").read_text())
    value["classes"] = manifest.classes_entry(names)
    value["files"]["classes.txt"] = value["classes"]["sha256"]
    (dataset / "dataset.json").write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("blue", "lime", "red", "aqua", "zinc"),
            "label 1 is 'green' in MODEL and 'lime' in DATASET, which has no such",
        ),
        (
            ("aqua", "blue", "green", "red", "zinc"),
            "label 0 is 'blue' in MODEL and 'aqua' in DATASET, which has it as label 1",
        ),
        (
            ("blue", "green"),
            "the 3 classes of MODEL are not the first of the 2 of .*: label 2 is 'red' "
            "in MODEL and nothing in DATASET, which has no such",
        ),
    ],
    ids=["renamed", "reordered", "fewer"],
)
def test_other_classes_are_refused(
    run: Run, base: Path, dataset: Path, tmp_path: Path, names, message
) -> None:
    with_classes(dataset, *names)
    with pytest.raises(RunError, match=f"{message}.*--append.*--classes=FILE"):
        run(dataset, tmp_path / "model", extend=base)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("key", "value"), [("height", 33), ("width", 48), ("resize", "pad")]
)
def test_other_images_are_refused(
    run: Run, base: Path, dataset: Path, tmp_path: Path, key: str, value: object
) -> None:
    described = json.loads((dataset / "dataset.json").read_text())
    before = described["image"][key]
    described["image"][key] = value
    (dataset / "dataset.json").write_text(json.dumps(described))
    message = f"image.{key} is {before} there and {value} here .MODEL there, DATASET"
    with pytest.raises(RunError, match=message):
        run(dataset, tmp_path / "model", extend=base)


def test_another_recipe_is_refused(
    run: Run, base: Path, grown_dataset: Path, tmp_path: Path
) -> None:
    scaled = replace(SHORT, preprocessing="imagenet")
    with pytest.raises(RunError, match=r"MODEL takes 'pixels x 1/255.*'BGR less"):
        run(grown_dataset, tmp_path / "model", extend=base, recipe=scaled)
    wider = replace(SHORT, hidden=8)
    with pytest.raises(RunError, match="'hidden' has 512x256 weights there and 512x8"):
        run(grown_dataset, tmp_path / "model", extend=base, recipe=wider)
    assert not (tmp_path / "model").exists()


def test_a_model_of_release_01(
    run: Run, copy: Path, grown_dataset: Path, tmp_path: Path
) -> None:
    """Its model.json is enough; the network of that fixture is none of ours."""
    value = json.loads((RELEASE_01 / "model.json").read_text())
    value["sha256"] = json.loads((copy / "model.json").read_text())["sha256"]
    (copy / "model.json").write_text(json.dumps(value))
    run(grown_dataset, tmp_path / "model", epochs=1, extend=copy)
    with pytest.raises(RunError, match="no layer 'block4_conv1'; it has pixels, resc"):
        run(grown_dataset, tmp_path / "other", extend=RELEASE_01)


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (shutil.rmtree, "does not exist"),
        (lambda folder: (folder / "model.json").unlink(), "is incomplete"),
        (lambda folder: (folder / "classes.txt").write_text("x\n"), "is not the list"),
        (
            lambda folder: (folder / "model.keras").write_bytes(b"x"),
            r"model\.keras is not the file",
        ),
    ],
)
def test_what_is_no_finished_model_is_refused(
    run: Run, copy: Path, grown_dataset: Path, tmp_path: Path, breakage, message
) -> None:
    breakage(copy)
    with pytest.raises(RunError, match=message):
        run(grown_dataset, tmp_path / "model", extend=copy)
    assert not (tmp_path / "model").exists()


def test_wrong_usage(
    program: Program, base: Path, grown_dataset: Path, tmp_path: Path
) -> None:
    """Of itself, under any name; below itself; with other weights."""
    (tmp_path / "link").symlink_to(base)
    before = tree(base)

    def said(*words: object) -> str:
        result: subprocess.CompletedProcess = program(
            "trainer", f"--dataset={grown_dataset}", f"--extend={base}", *words
        )
        assert result.returncode == 2, result.stderr
        return str(result.stderr)

    for model in (base, tmp_path / "link", base / "x" / ".." / "next"):
        assert "must be another folder, outside it" in said(f"--model={model}")
    words = (f"--model={tmp_path / 'model'}", "--weights=none")
    assert "takes all weights from that MODEL, and --weights=none" in said(*words)
    assert not (tmp_path / "model").exists()
    assert tree(base) == before


def test_readers_name_the_flag(base: Path, grown_dataset: Path) -> None:
    from trainer.contract import read_contract

    with pytest.raises(
        RunError,
        match=r"has 5 classes, and MODEL knows the first 3 of them: 'aqua' is new \(2 "
        r"in all\).*ARGS=--extend=MODEL",
    ):
        read_contract(base).check(manifest.load(grown_dataset))


# ----------------------------------------------------------------------- weights


def test_the_model_of_weights_is_known_by_its_content(
    run: Run, base: Path, copy: Path, grown_dataset: Path, tmp_path: Path
) -> None:
    """It may be moved, and be named by its file; another one is refused."""
    folder, other = tmp_path / "model", tmp_path / "other"
    run(grown_dataset, folder, epochs=1, weights=str(base))
    run(grown_dataset, folder, epochs=2, weights=str(copy))
    run(grown_dataset, folder, epochs=3, weights=str(copy / "model.keras"))
    key = json.loads((folder / "model.json").read_text())["run"]
    fingerprint = json.loads((base / "model.json").read_text())["sha256"]
    assert key["weights"] == f"sha256:{fingerprint}"
    run(grown_dataset, other, epochs=1)
    with pytest.raises(RunError, match=r"weights is sha256:.* there and sha256:"):
        run(grown_dataset, folder, epochs=4, weights=str(other))
    with pytest.raises(RunError, match=r"weights is sha256:.* there and none here"):
        run(grown_dataset, folder, epochs=4)
