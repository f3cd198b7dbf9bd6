"""Fixtures of training: a run in this process, a DATASET that has grown."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.made_once import made_once
from tests.support.photos import HEIGHT, WIDTH, jpeg, photo
from tests.support.training import SHORT


@pytest.fixture(scope="session")
def run(tf) -> Callable[..., None]:
    """Trains MODEL; three epochs from random weights, with a seed, if not said."""
    from trainer import train
    from trainer.options import TrainOptions

    def run(dataset: Path, folder: Path, epochs: int = 3, **options: object) -> None:
        recipe = replace(options.pop("recipe", SHORT), epochs=epochs)
        if "extend" not in options:
            options = {"weights": "none", **options}
        settings = {"seed": 3, "cpu": True, **options}
        train.run(
            TrainOptions(dataset=dataset, model=folder, recipe=recipe, **settings)
        )

    return run


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
