"""Training on a DATASET to which images were added."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.system.errors import RunError
from tests.support.files import tree
from tests.support.small_network import small_convolutions
from tests.support.training import SHORT, outcome
from trainer.recipe import NO_AUGMENTATION

Run = Callable[..., None]
# What depends on the images and classes of then: weights of classes, features.
RECIPE = replace(SHORT, class_weights=0.5, augmentation=NO_AUGMENTATION)


@pytest.fixture(scope="module", autouse=True)
def small_network(tf) -> Iterator[None]:
    with small_convolutions():
        yield


@pytest.fixture(scope="module")
def undisturbed(
    tf, run: Run, made_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """MODEL of the DATASET that does not grow; not to be changed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "model"
    run(made_dataset, folder, recipe=RECIPE)
    return folder


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    "cache", ["auto", pytest.param("none", marks=pytest.mark.integration)]
)
def test_a_run_goes_on_with_what_it_began_with(
    tf,
    run: Run,
    made_dataset: Path,
    grown_dataset: Path,
    undisturbed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    finished: bool,
    cache: str,
) -> None:
    """The weights are those of a DATASET that did not grow, to the bit."""
    folder = tmp_path / "model"
    run(made_dataset, folder, epochs=1, recipe=RECIPE, cache=cache)
    if not finished:
        (folder / "model.json").unlink()
    run(grown_dataset, folder, epochs=3, recipe=RECIPE, cache=cache)
    said = capsys.readouterr().err
    assert "it had 40 images and 3 classes, and has 58 and 5 now; the run goes" in said
    if cache == "none":  # another order
        undisturbed = tmp_path / "undisturbed"
        run(made_dataset, undisturbed, recipe=RECIPE, cache=cache)
    found, expected = outcome(tf, folder), outcome(tf, undisturbed)
    assert found["history"] == expected["history"]
    for ours, theirs in zip(found["weights"], expected["weights"], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (folder / "classes.txt").read_text().split() == ["blue", "green", "red"]
    for name in ("dataset", "classes"):
        ours, theirs = (
            json.loads((one / "model.json").read_text())["run"][name]
            for one in (folder, undisturbed)
        )
        assert ours == theirs


def test_a_finished_model_is_not_taken_for_one_of_the_new_images(
    run: Run, undisturbed: Path, grown_dataset: Path
) -> None:
    before = tree(undisturbed)
    with pytest.raises(RunError, match=r"is complete, and DATASET .* --extend="):
        run(grown_dataset, undisturbed, recipe=RECIPE)
    assert tree(undisturbed) == before


def test_without_its_checkpoint_a_model_is_refused_with_the_flag(
    run: Run, undisturbed: Path, grown_dataset: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(undisturbed, tmp_path / "model"))
    shutil.rmtree(folder / "checkpoint")
    with pytest.raises(
        RunError, match=r"another run: classes.count is 3 there and 5 .*--extend="
    ):
        run(grown_dataset, folder, recipe=RECIPE, epochs=4)


@pytest.mark.parametrize("kind", ["another dataset", "damaged", "none"])
def test_what_is_no_growth_is_refused(
    run: Run,
    undisturbed: Path,
    grown_dataset: Path,
    tmp_path: Path,
    kind: str,
) -> None:
    """A shard of then is another one now; or nobody knows what was there then."""
    folder = Path(shutil.copytree(undisturbed, tmp_path / "model"))
    dataset = Path(shutil.copytree(grown_dataset, tmp_path / "dataset"))
    kept = folder / "checkpoint/dataset.json"
    if kind == "another dataset":
        value = json.loads((dataset / "dataset.json").read_text())
        value["splits"]["train"]["shards"][0]["sha256"] = "0" * 64
        (dataset / "dataset.json").write_text(json.dumps(value))
    elif kind == "damaged":
        kept.write_bytes(kept.read_bytes()[:-9])
    else:
        kept.unlink()
    (folder / "model.json").unlink()
    with pytest.raises(RunError, match=r"another run: classes.count is 3 there and 5"):
        run(dataset, folder, recipe=RECIPE, epochs=4)
