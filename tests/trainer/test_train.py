"""DATASET → MODEL: what a run leaves, and how it goes on."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset import manifest
from pipeline.system import resources
from pipeline.system.errors import RunError, UsageError
from tests.support.files import REPOSITORY
from tests.support.processes import Program
from tests.support.small_network import small_convolutions
from tests.support.training import SHORT
from trainer.recipe import NO_AUGMENTATION

RECIPE = SHORT
TRAIN_STEPS = 24 // RECIPE.batch_size
TIMED = ("seconds", "images_per_second", "input_wait")  # differ from run to run


@pytest.fixture(scope="module", autouse=True)
def small_network(tf) -> Iterator[None]:
    """Has runs in this process train a small network; programs train VGG16."""
    with small_convolutions():
        yield


@pytest.fixture(scope="module")
def trained(
    small_network, tmp_path_factory: pytest.TempPathFactory, made_dataset: Path
) -> Path:
    """MODEL of three epochs; not to be changed."""
    from trainer import train
    from trainer.options import TrainOptions

    folder = tmp_path_factory.mktemp("trained") / "model"
    train.run(
        TrainOptions(
            dataset=made_dataset,
            model=folder,
            recipe=RECIPE,
            weights="none",
            seed=3,
            cpu=True,
        )
    )
    return folder


def weights(folder: Path) -> list[np.ndarray]:
    import keras

    network = keras.models.load_model(folder / "model.keras")
    return network.get_weights()


def snapshots(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "snapshot").iterdir())


def history(folder: Path) -> list[dict]:
    from trainer.training import history

    return history.read(folder / "history.csv")


def test_what_a_run_leaves(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {
        *("checkpoint", "classes.txt", "history.csv", "model.json"),
        *("model.keras", "snapshot", "starts.json", "tensorboard"),
    }
    rows = history(trained)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    best = float("inf")
    expected = set()
    for row in rows:
        if row["val_loss"] < best:
            best = row["val_loss"]
            expected.add(f"{row['epoch']:03d}-{row['val_accuracy']:.5f}.keras")
    assert {path.name for path in (trained / "snapshot").iterdir()} == expected
    value = json.loads((trained / "model.json").read_text())
    assert value["image"] == {"height": 32, "width": 40, "resize": "stretch"}
    assert value["best"]["val_loss"] == best
    assert value["recipe"]["batch_size"] == 8


def test_the_saved_model_is_the_one_that_was_validated(
    trained: Path, made_dataset: Path
) -> None:
    """Loss and accuracy by hand, from the reloaded model and the shards."""
    import keras

    from trainer.data import input_pipeline as data

    dataset = manifest.load(made_dataset)
    shards = dataset.split("validation").shards
    (batch,) = data.for_inference(dataset, shards, batch_size=100)
    network = keras.models.load_model(trained / "model.keras")
    probabilities = network(batch.images).numpy()
    right = probabilities[np.arange(len(batch.labels)), batch.labels]
    last = history(trained)[-1]
    assert last["val_loss"] == pytest.approx(-np.log(right).mean(), rel=1e-4)
    hits = (probabilities.argmax(axis=1) == batch.labels.numpy()).mean()
    assert last["val_accuracy"] == pytest.approx(hits)


def test_tensorboard_has_every_epoch_once(tf, trained: Path) -> None:
    of_split = ("accuracy", "loss", "top5_accuracy")
    of_run = ("images_per_second", "input_wait", "learning_rate")
    for split, names in (("train", (*of_split, *of_run)), ("validation", of_split)):
        events = [
            (event.step, value.tag)
            for path in sorted((trained / "tensorboard" / split).iterdir())
            for event in tf.compat.v1.train.summary_iterator(str(path))
            for value in event.summary.value
        ]
        assert sorted(events) == [(e, n) for e in (1, 2, 3) for n in sorted(names)]


def test_it_learns(trained: Path) -> None:
    first, *_, last = history(trained)
    assert last["loss"] < first["loss"]
    assert last["accuracy"] > 2 / 3


def test_a_run_in_two_parts_ends_with_the_same_weights(
    run, trained: Path, made_dataset: Path, tmp_path: Path
) -> None:
    """Epochs raised from 1 to 3: the data, the optimizer and dropout go on."""
    folder = tmp_path / "model"
    run(made_dataset, folder, epochs=1)
    run(made_dataset, folder, epochs=3)
    for ours, theirs in zip(weights(folder), weights(trained), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(history(folder), history(trained), strict=True):
        for name in TIMED:
            del ours[name], theirs[name]
        assert ours == theirs


def test_a_signal_in_validation_costs_no_step(
    run,
    trained: Path,
    made_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As SLURM sends one before its limit; the epoch may have taken hours."""
    from trainer.training import checkpoint
    from trainer.training.loop import Loop

    evaluate, folder, calls = Loop.evaluate, tmp_path / "model", []

    def interrupted(loop: Loop, batches: object) -> object:
        calls.append(batches)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        return evaluate(loop, batches)

    monkeypatch.setattr(Loop, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(made_dataset, folder, epochs=3)
    saved = checkpoint.read(folder / "checkpoint" / "state.npz")
    assert (saved.epoch, saved.trained.steps) == (1, TRAIN_STEPS)
    run(made_dataset, folder, epochs=3)
    for ours, theirs in zip(weights(folder), weights(trained), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def begun_otherwise(folder: Path, facts: dict) -> bytes:
    """Makes MODEL unfinished, with the state of another release; returns its bytes."""
    (folder / "model.json").unlink(missing_ok=True)
    state = folder / "checkpoint" / "state.npz"
    with np.load(state) as file:
        arrays = {f"model{i:04d}": file[n] for i, n in enumerate(file.files)}
    np.savez(state, facts=np.array(json.dumps(facts)), **arrays)
    return state.read_bytes()


@pytest.mark.parametrize(
    ("facts", "release"), [({}, r"release 0\.1"), ({"form": 3}, "another release")]
)
def test_a_run_that_another_release_began_is_refused(
    run, trained: Path, made_dataset: Path, tmp_path: Path, facts: dict, release: str
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    key = json.loads((folder / "model.json").read_text())["run"]
    saved = begun_otherwise(folder, {"key": key, "progress": {}, **facts})
    with pytest.raises(RunError, match=f"was begun by {release}, and is not"):
        run(made_dataset, folder, epochs=4)
    assert (folder / "checkpoint" / "state.npz").read_bytes() == saved


def test_a_finished_run_of_another_form_of_state_is_finished(
    run, trained: Path, made_dataset: Path, tmp_path: Path, capsys
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    manifest_text = (folder / "model.json").read_text()
    begun_otherwise(folder, {"key": json.loads(manifest_text)["run"], "progress": {}})
    (folder / "model.json").write_text(manifest_text)
    run(made_dataset, folder)
    assert "is complete already" in capsys.readouterr().out


def test_a_run_with_other_masks_of_dropout_is_refused(
    run, trained: Path, made_dataset: Path, tmp_path: Path, monkeypatch
) -> None:
    from trainer import run_key

    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    (folder / "model.json").unlink()
    monkeypatch.setattr(run_key, "DROPOUT_MASKS", "version 2")
    with pytest.raises(RunError, match="belongs to another run: dropout_masks is"):
        run(made_dataset, folder, epochs=4)


def test_half_precision_goes_on_and_loads_alone(
    run, made_dataset: Path, tmp_path: Path
) -> None:
    """The loss scale is restored; MODEL needs Keras alone, and has its Dropout."""
    recipe = replace(RECIPE, precision="mixed_float16")
    run(made_dataset, tmp_path / "whole", epochs=2, recipe=recipe)
    folder = tmp_path / "model"
    run(made_dataset, folder, epochs=1, recipe=recipe)
    run(made_dataset, folder, epochs=2, recipe=recipe)
    for ours, theirs in zip(weights(folder), weights(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    script = (
        "import sys, keras; model = keras.models.load_model('model.keras');"
        "assert not {'trainer', 'pipeline'} & set(sys.modules);"
        "print(type(model.get_layer('dropout')).__name__)"
    )
    words = [sys.executable, "-I", "-c", script]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "Dropout"


def test_the_cache_may_change_where_the_order_does_not(
    run, trained: Path, made_dataset: Path, tmp_path: Path, monkeypatch
) -> None:
    """Pixels in memory, JPEGs, pixels on disk, one epoch each: the same weights."""
    folder = tmp_path / "model"
    run(made_dataset, folder, epochs=1, cache="decoded")
    run(made_dataset, folder, epochs=2, cache="encoded")
    monkeypatch.setattr(resources, "free_memory", lambda: 1000)
    run(made_dataset, folder, epochs=3, cache="auto")
    for ours, theirs in zip(weights(folder), weights(trained), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not (folder / "cache").exists()


def test_a_cache_folder_of_ones_own_is_kept(
    run, made_dataset: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(resources, "free_memory", lambda: 1000)
    options = {"cache": "decoded", "cache_folder": tmp_path / "cache", "epochs": 1}
    run(made_dataset, tmp_path / "first", **options)
    run(made_dataset, tmp_path / "second", **options)
    said = capsys.readouterr().out
    assert "cache: decoded, on disk: pixels take 127 KB" in said
    for split in ("train", "validation"):
        assert f"cache in {tmp_path / 'cache' / split} is complete" in said


PLAIN = replace(RECIPE, augmentation=NO_AUGMENTATION)


def test_the_default_trains_the_model_of_pixels_to_the_bit(
    run, made_dataset: Path, tmp_path: Path, capsys
) -> None:
    """Nothing but --cache=auto: it takes features, and they change no number."""
    made = {}
    for cache in ("decoded", "auto"):
        folder = tmp_path / cache
        run(made_dataset, folder, cache=cache, recipe=PLAIN)
        rows = history(folder)
        for row in rows:
            for name in TIMED:
                del row[name]
        made[cache] = weights(folder), rows, snapshots(folder)
        assert not (folder / "cache").exists()
    said = capsys.readouterr().out
    assert "cache: features, on disk: block4_pool as float32" in said
    assert "3 classes: blue, green, red" in said
    for ours, theirs in zip(made["auto"][0], made["decoded"][0], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert made["auto"][1:] == made["decoded"][1:]


def test_features_that_are_kept_need_no_room(
    run, made_dataset: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    """The disk is full of them: `auto` takes what is there."""
    options = {"recipe": PLAIN, "cache_folder": tmp_path / "kept", "epochs": 2}
    run(made_dataset, tmp_path / "first", **options)
    monkeypatch.setattr(resources, "free_disk", lambda _: 1000)
    run(made_dataset, tmp_path / "second", **options)
    assert capsys.readouterr().out.count("cache: features, on disk") == 2


@pytest.mark.integration
@pytest.mark.parametrize("cache", ["auto", "decoded"])
def test_without_augmentation_a_recipe_may_use_features(
    made_dataset: Path, tmp_path: Path, program: Program, cache: str
) -> None:
    """And it is another run than with augmentation."""
    folder = tmp_path / "model"
    words = ["trainer", f"--dataset={made_dataset}", f"--model={folder}", "--seed=3"]
    words += ["--recipe=demo", "--weights=none", "--batch_size=8", "--cpu"]
    result = program(*words, "--epochs=2", "--augmentation=none", f"--cache={cache}")
    assert result.returncode == 0, result.stderr
    kind = "features" if cache == "auto" else cache
    assert f"cache: {kind}, " in result.stdout
    recipe = json.loads((folder / "model.json").read_text())["recipe"]
    assert recipe["augmentation"]["flip"] is False
    result = program(*words, "--epochs=3", "--cache=decoded")
    assert result.returncode == 1
    if cache == "decoded":
        assert "recipe.augmentation.flip is False there and True" in result.stderr


def test_features_of_augmented_images_are_refused(
    made_dataset: Path, tmp_path: Path, program: Program
) -> None:
    words = [f"--dataset={made_dataset}", f"--model={tmp_path / 'model'}"]
    words += ["--recipe=demo", "--weights=none", "--batch_size=8"]
    result = program("trainer", *words, "--cache=features")
    assert result.returncode == 2
    assert "--cache=features: recipe demo augments images" in result.stderr
    assert "--augmentation=none" in result.stderr
    assert not (tmp_path / "model").exists()


def test_features_go_on_bit_for_bit(
    run, made_dataset: Path, tmp_path: Path, capsys
) -> None:
    """`auto` keeps to them; a cache folder of one's own serves both."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = {"recipe": PLAIN, "cache_folder": tmp_path / "kept"}
    run(made_dataset, whole, cache="features", **options)
    run(made_dataset, parts, epochs=1, cache="features", **options)
    run(made_dataset, parts, epochs=3, cache="auto", **options)
    said = capsys.readouterr().out
    assert "as this run began" in said
    assert f"cache in {tmp_path / 'kept' / 'train-features'} is complete" in said
    for ours, theirs in zip(weights(parts), weights(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache": "decoded"}, "features is .*float32.* there and None here"),
        ({"feature_dtype": "uint8"}, "features.dtype is float32 there and uint8 here"),
    ],
)
def test_other_features_are_refused(
    run, made_dataset: Path, tmp_path: Path, options: dict, message: str
) -> None:
    first = {"cache": "features", "recipe": PLAIN, "epochs": 1}
    run(made_dataset, tmp_path / "model", **first)
    with pytest.raises(RunError, match=message):
        run(made_dataset, tmp_path / "model", **{**first, "epochs": 2, **options})


@pytest.mark.integration
def test_features_on_two_replicas(
    made_dataset: Path, tmp_path: Path, program: Program
) -> None:
    folder = tmp_path / "model"
    words = ["trainer", f"--dataset={made_dataset}", f"--model={folder}", "--seed=3"]
    words += ["--recipe=article", "--weights=none", "--batch_size=8", "--epochs=2"]
    words += ["--cache=features", "--feature_dtype=uint8"]
    result = program(*words, "--virtual_devices=2")
    assert result.returncode == 0, result.stderr
    assert "cache: features, on disk: block4_pool as uint8" in result.stdout
    assert len(history(folder)) == 2
    assert not (folder / "cache").exists()


def test_a_phase_that_trains_all_layers_leaves_the_features(
    run, made_dataset: Path, tmp_path: Path, capsys
) -> None:
    """The head from features, the rest from pixels: the model of pixels alone."""
    recipe = replace(
        PLAIN,
        trainable="all",
        head_epochs=2,
        head_learning_rate=1e-3,
        learning_rate=1e-6,
    )
    for cache in ("decoded", "features"):
        run(made_dataset, tmp_path / cache, cache=cache, recipe=recipe)
    said = capsys.readouterr().out
    assert "cache: features, on disk: block5_pool as float32" in said
    assert said.count("cache: decoded") == 2
    found, expected = (history(tmp_path / cache) for cache in ("features", "decoded"))
    first, *rest = zip(found, expected, strict=True)
    assert first[0]["loss"] == pytest.approx(first[1]["loss"], rel=1e-3)
    # RMSprop's first steps have one length for any gradient: they amplify rounding. A
    # head whose weights begin one rounding higher is 0.1 % off after two epochs.
    for ours, theirs in rest:
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.03)


def test_another_order_is_refused(
    run, trained: Path, made_dataset: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    with pytest.raises(RunError, match="order is permutation there and window here"):
        run(made_dataset, folder, epochs=4, cache="none")


def test_a_finished_run_does_nothing(
    run, trained: Path, made_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / "model.keras").stat().st_mtime_ns
    run(made_dataset, trained)
    assert "complete already: 3 epochs" in capsys.readouterr().out
    assert (trained / "model.keras").stat().st_mtime_ns == before


def test_a_run_that_was_killed_after_its_result_leaves_no_cache(
    run, trained: Path, made_dataset: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    (folder / "cache" / "train").mkdir(parents=True)
    run(made_dataset, folder)
    assert not (folder / "cache").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 4}, "seed is 3 there and 4 here"),
        (
            {"recipe": replace(RECIPE, learning_rate=0.5)},
            "recipe.learning_rate is 3e-05 there and 0.5 here",
        ),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_another_run_in_the_same_folder_is_refused(
    run, trained, made_dataset, tmp_path, options, message, finished
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    if not finished:
        (folder / "model.json").unlink()
    with pytest.raises(RunError, match=message):
        run(made_dataset, folder, epochs=4, **options)


def test_a_foreign_folder_is_refused(run, made_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="no training run made it"):
        run(made_dataset, tmp_path)


def test_without_validation_there_are_no_snapshots(
    run, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = json.loads((dataset / "dataset.json").read_text())
    del value["splits"]["validation"]
    (dataset / "dataset.json").write_text(json.dumps(value))
    run(dataset, tmp_path / "model", epochs=1)
    assert "warning: DATASET has no validation split" in capsys.readouterr().err
    assert not (tmp_path / "model" / "snapshot").exists()
    (row,) = history(tmp_path / "model")
    assert row["val_loss"] is row["val_accuracy"] is None


def test_an_incomplete_dataset_is_refused(run, dataset: Path, tmp_path: Path) -> None:
    (dataset / "dataset.json").unlink()
    with pytest.raises(RunError, match=r"is incomplete: it has no dataset\.json"):
        run(dataset, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_batch_must_divide_by_the_replicas() -> None:
    from trainer.training.distribution import check_batch_size

    check_batch_size(64, 4)
    with pytest.raises(UsageError, match="nearest that do: 60 and 66"):
        check_batch_size(64, 6)
    with pytest.raises(UsageError, match="nearest that do: 4"):
        check_batch_size(3, 4)


@pytest.mark.parametrize(
    ("flag", "allowed"),
    [("save_minutes=-1", "0 or more"), ("hang_minutes=0", "above 0")],
)
def test_times_that_cannot_be_are_wrong_usage(
    flag: str, allowed: str, program: Program
) -> None:
    """`--hang_minutes=0` ended the run at once."""
    result = program("trainer", "--dataset=x", "--model=y", f"--{flag}")
    assert result.returncode == 2
    assert f"it must be {allowed}" in result.stderr


def test_a_cosine_run_keeps_its_epochs(run, made_dataset: Path, tmp_path: Path) -> None:
    """With more of them its rate, which has come down to zero, would jump up again."""
    cosine = replace(RECIPE, optimizer="adamw", schedule="cosine", decay=0.0)
    run(made_dataset, tmp_path / "model", epochs=1, recipe=cosine)
    with pytest.raises(RunError, match=r"recipe\.epochs is 1 there and 2 here"):
        run(made_dataset, tmp_path / "model", epochs=2, recipe=cosine)


def test_a_weights_file_is_known_by_its_content(
    tf, run, made_dataset: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    path = tmp_path / "vgg.weights.h5"
    tf.keras.applications.VGG16(include_top=False, weights=None).save_weights(path)
    run(made_dataset, folder, epochs=1, weights=str(path))
    moved = path.rename(tmp_path / "moved.h5")
    run(made_dataset, folder, epochs=2, weights=str(moved))
    moved.write_bytes(b"of another network")
    with pytest.raises(RunError, match="weights is sha256"):
        run(made_dataset, folder, epochs=3, weights=str(moved))


def test_imagenet_without_a_network(
    made_dataset: Path, tmp_path: Path, program: Program, monkeypatch
) -> None:
    """A proxy that refuses connections stands in for a machine without a network."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    folder = tmp_path / "model"
    words = (f"--dataset={made_dataset}", f"--model={folder}", "--batch_size=8")
    result = program("trainer", *words)
    assert result.returncode == 1
    assert "--weights=PATH" in result.stderr
    assert "--weights=none" in result.stderr
    assert "Traceback" not in result.stderr
    assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset=x"], "missing --model"),
        (["--dataset=x", "--model=y", "--recipe=cake"], "article|demo"),
        (["--dataset=x", "--model=y", "--epochs=0"], "epochs"),
        (["--dataset=x", "--model=y", "--learning_rate=0"], "learning_rate is 0"),
        (["--dataset=x", "--model=y", "--", "--foo"], "nothing takes"),
        (["--dataset=x", "--model=y", "--jit", "--trainable=all"], "jit is True"),
        (["--dataset=x", "--model=y", "--precision=half"], "mixed_bfloat16"),
        (["--dataset=x", "--model=y", "--feature_dtype=int4"], "float32|float16|uint8"),
        (
            ["--dataset=x", "--model=y", "--features_on=host"],
            "no verb has a flag --feature",
        ),
        (
            ["--dataset=x", "--model=y", "--feature_views=2"],
            "no verb has a flag --feature",
        ),
        (["--dataset=x", "--model=y", "--augmentation=some"], "recipe|none"),
        (
            ["--dataset=x", "--model=y", "--head_epochs=3"],
            "give both or neither",
        ),
    ],
)
def test_wrong_usage(words: list[str], message: str, program: Program) -> None:
    result = program("trainer", *words)
    assert result.returncode == 2
    assert message in result.stderr


def test_a_divergence_names_its_images_and_saves_nothing(
    run, made_dataset: Path, tmp_path: Path
) -> None:
    """The first batch is fine; its update is what breaks the second."""
    folder = tmp_path / "model"
    broken = replace(RECIPE, learning_rate=1e30, decay=0.0)
    with pytest.raises(RunError, match=r"diverged.*step 2 of epoch 1") as error:
        run(made_dataset, folder, recipe=broken)
    named = str(error.value).rpartition(": ")[2].split(", ")
    assert len(set(named)) == 8
    assert all(name.endswith(".jpg") for name in named)
    assert not (folder / "history.csv").exists()
    with np.load(folder / "checkpoint" / "state.npz") as arrays:
        for name in arrays.files:
            if name != "state":
                assert np.isfinite(arrays[name]).all()


@pytest.mark.parametrize("permuted", [True, False])
def test_ids_of_a_batch(tf, made_dataset: Path, permuted: bool) -> None:
    """The pictures that the stream has there, by their bytes."""
    from pipeline.dataset import record
    from trainer.cache import content, in_memory
    from trainer.cache.stores import Rows
    from trainer.data import input_pipeline as data

    dataset = manifest.load(made_dataset)
    how = {"batch_size": 5, "seed": 4}
    if permuted:
        columns = in_memory.fill(content.pixels(dataset, "train"))
        stream = data.from_store(Rows(columns), **how)
    else:
        stream = data.for_training(dataset, **how)
    pictures = {
        stored.record.id: tf.io.decode_jpeg(
            stored.record.encoded, dct_method="INTEGER_ACCURATE"
        ).numpy()
        for path in dataset.paths("train")
        for stored in record.read(path)
    }
    for number, (images, _) in enumerate(stream.take(12)):
        ids = data.ids_of_batch(dataset, permuted=permuted, number=number, **how)
        for id, picture in zip(ids, images.numpy(), strict=True):
            np.testing.assert_array_equal(pictures[id], picture)


def test_the_newest_snapshots_are_kept(
    run, made_dataset: Path, tmp_path: Path, trained: Path
) -> None:
    folder = tmp_path / "model"
    run(made_dataset, folder, keep_snapshots=1)
    best = sorted(path.name for path in (trained / "snapshot").iterdir())[-1]
    assert [path.name for path in (folder / "snapshot").iterdir()] == [best]


def test_an_unfinished_snapshot_of_another_run_is_left_alone(tmp_path: Path) -> None:
    """Where nobody can tell whether that run lives: without locks."""
    from trainer.training import snapshots

    folder = tmp_path / "snapshot"
    folder.mkdir()
    scratch = folder / ".scratch-0123456789ab-01234567-002-0.50000.keras"
    for path in (scratch, folder / "001-0.50000.keras", folder / "002-0.60000.keras"):
        path.touch()
    snapshots.forget_after(tmp_path, 1)
    snapshots.keep_newest(tmp_path, 1)
    assert sorted(path.name for path in folder.iterdir()) == [
        scratch.name,
        "001-0.50000.keras",
    ]


def test_class_weights_have_a_mean_of_one_over_the_examples(tf, dataset: Path) -> None:
    from trainer.train import _class_weights

    value = json.loads((dataset / "dataset.json").read_text())
    classes = value["ledger"]["splits"]["train"]["classes"]
    for name, written in (("blue", 16), ("green", 4), ("red", 4)):
        classes[name]["written"] = written
    (dataset / "dataset.json").write_text(json.dumps(value))
    loaded = manifest.load(dataset)
    assert _class_weights(loaded, 0) is None
    found = np.array(_class_weights(loaded, 0.5))
    np.testing.assert_allclose(found / found[0], [1, 2, 2])
    np.testing.assert_allclose((found * [16, 4, 4]).sum() / 24, 1)


def test_a_damaged_state_is_refused(
    run, trained: Path, made_dataset: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    state = folder / "checkpoint" / "state.npz"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"state\.npz is damaged"):
        run(made_dataset, folder, epochs=4)


@pytest.mark.integration
def test_a_full_disk_leaves_the_old_state(
    made_dataset: Path, trained: Path, tmp_path: Path
) -> None:
    """No file may be larger than a limit, below that of a state; then there is none."""
    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    (folder / "model.json").unlink()
    before = (folder / "checkpoint" / "state.npz").read_bytes()
    words = [
        *(f"--dataset={made_dataset}", f"--model={folder}", "--recipe=demo"),
        *("--weights=none", "--cpu", "--batch_size=8", "--seed=3", "--epochs=4"),
    ]
    limited = (
        "import resource, runpy, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))\n"
        f"sys.argv = ['trainer', *{words!r}]\n"
        "from tests.support.small_network import small_convolutions\n"
        "with small_convolutions():\n"
        "    runpy.run_module('trainer', run_name='__main__')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", limited],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=120,
        check=False,
    )
    assert result.returncode == 1
    assert "File too large" in result.stderr
    assert "run the same command again" in result.stderr
    assert (folder / "checkpoint" / "state.npz").read_bytes() == before
    assert sorted(path.name for path in (folder / "checkpoint").iterdir()) == [
        "dataset.json",
        "state.npz",
    ]
