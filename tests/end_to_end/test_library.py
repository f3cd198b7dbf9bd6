"""What programs of users call, and the lines of README and docs that call it."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline import dataset
from pipeline.dataset import manifest, record
from pipeline.system.errors import RunError
from tests.support.files import REPOSITORY
from tests.support.photos import CLASSES, HEIGHT, WIDTH

TRAIN = 24
LOGICAL_DEVICES = """
import tensorflow as tf
(processor,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(
    processor, [tf.config.LogicalDeviceConfiguration()] * 2
)
"""


def code_after(page: str, heading: str, begin: str) -> str:
    """Returns the indented block of a page that begins with some words."""
    text = (REPOSITORY / page).read_text().partition(f"## {heading}\n")[2]
    block = re.search(
        rf"^    {re.escape(begin)}(?:.*\n|\n(?=    |\n))+?(?=\S)", text, re.M
    )
    assert block, f"{page} has no such lines"
    return "\n".join(line[4:] for line in block[0].splitlines())


def run(code: str, **environment: str) -> str:
    """Runs a program in a process of its own, where warnings are errors of ours."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), **environment},
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def losses(said: str, name: str) -> Sequence[float]:
    return [float(value) for value in re.findall(rf"\b{name}: ([\d.]+)", said)]


@pytest.mark.parametrize("devices", [1, 2])
def test_a_model_of_ones_own_is_trained_by_fit(
    made_dataset: Path, devices: int
) -> None:
    """24 examples in batches of 10 and 8, 9 to validate: no last batch is full."""
    lines = code_after("README.md", "In your own program", "import keras")
    assert 10 <= len(lines.splitlines()) <= 20
    assert lines.count("64") == 3
    lines = lines.replace("64", "10" if devices == 1 else "8")
    lines = lines.replace("epochs=10", "epochs=3, verbose=2")
    replicas = [f"CPU:{index}" for index in range(devices)]
    lines = lines.replace("MirroredStrategy()", f"MirroredStrategy({replicas})")
    lines = lines.replace("/scratch/dataset", str(made_dataset))
    said = run((LOGICAL_DEVICES if devices == 2 else "") + lines)
    assert len(losses(said, "loss")) == 3
    assert len(losses(said, "val_loss")) == 3
    assert "ran out of data" not in said
    assert "auto_shard" not in said  # it would take out the check of a shard's length


def test_two_replicas_validate_what_one_does(made_dataset: Path) -> None:
    """Of 9 in batches of 6, two replicas get 3 and 3, then 1 and 1."""
    code = f"""{LOGICAL_DEVICES}
import keras
from pipeline import dataset
from trainer import for_inference, for_validation
data = dataset.load({str(made_dataset)!r})
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    model = keras.Sequential(
        [keras.Input(({HEIGHT}, {WIDTH}, 3)), keras.layers.Rescaling(1 / 255),
         keras.layers.Flatten(), keras.layers.Dense({len(CLASSES)}, "softmax")]
    )
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    seen = model.evaluate(for_validation(data, batch_size=6), verbose=0)
shards = data.split("validation").shards
(batch,) = for_inference(data, shards, batch_size=9)
alone = keras.losses.sparse_categorical_crossentropy(
    batch.labels[:8], model(batch.images[:8])
)
print("loss:", seen[0], "alone:", float(tf.reduce_mean(alone)))
"""
    said = run(code)
    assert losses(said, "loss") == pytest.approx(losses(said, "alone"), rel=1e-5)


def test_a_dataset_is_loaded_and_read(made_dataset: Path) -> None:
    data = dataset.load(str(made_dataset))
    assert data == dataset.load(made_dataset) == manifest.load(made_dataset)
    assert data.classes == CLASSES
    examples = list(data.examples("train"))
    assert len(examples) == data.split("train").examples == TRAIN
    assert {one.text for one in examples} == {*CLASSES}
    assert all(data.classes[one.label] == one.text for one in examples)
    assert all(isinstance(one, record.Record) for one in examples)
    assert data.manifest()["splits"]["train"]["examples"] == TRAIN
    assert {one.label for one in data.examples("test")} == {-1}
    with pytest.raises(RunError, match="has no split 'val'; it has train, validation"):
        next(data.examples("val"))


def test_the_lines_that_look_at_a_dataset(made_dataset: Path) -> None:
    lines = code_after("docs/library.md", "Look at it", "from pipeline import dataset")
    said = run(
        lines.replace("/scratch/dataset", str(made_dataset)) + "\nimport sys\n"
        "print({'tensorflow', 'keras', 'apache_beam'} & {*sys.modules})\n"
    )
    size, splits, example, imported = said.splitlines()
    assert size == f"{HEIGHT} {WIDTH} {len(CLASSES)}"
    assert splits == "{'train': 24, 'validation': 9, 'test': 7}"
    assert example.split()[2] in CLASSES
    assert imported == "set()"


def test_importing_trainer_loads_no_tensorflow() -> None:
    said = run(
        "import sys, trainer\n"
        "from trainer import RECIPES, Recipe\n"
        "assert isinstance(RECIPES['article'], Recipe)\n"
        "print({'tensorflow', 'keras'} & {*sys.modules}, *trainer.__all__)\n"
        "try: trainer.for_everything\n"
        "except AttributeError as error: print(error)\n"
        "from trainer import for_training\n"
        "print('tensorflow' in sys.modules)"
    )
    assert said.splitlines()[0].startswith("set() RECIPES Recipe for_inference")
    assert "module 'trainer' has no attribute 'for_everything'" in said
    assert said.splitlines()[-1].endswith("True") or "\nTrue\n" in said
