"""Fixtures of the tests of `predictor`."""

from pathlib import Path

import pandas as pd
import pytest

from tests.support.predictions import make_small


@pytest.fixture(scope="module")
def model(tf, tmp_path_factory: pytest.TempPathFactory, made_dataset: Path) -> Path:
    """MODEL of a network that takes hardly any time; not to be changed."""
    return make_small(tmp_path_factory.mktemp("small"), made_dataset)


@pytest.fixture
def run(tf, model: Path):
    from predictor import predict
    from predictor.format.file_format import Format
    from predictor.options import PredictionRequest, PredictOptions

    def run(dataset: Path | None, folder: Path, **options: object) -> pd.DataFrame:
        how = {"batch_size", "writers", "virtual_devices", "cpu"}
        settings = {"cpu": True, "model": model, "format": Format(), **options}
        wanted = {name: settings.pop(name) for name in settings.keys() - how}
        order = PredictionRequest(folder=folder, dataset=dataset, **wanted)
        predict.run(PredictOptions(request=order, **settings))
        shards = sorted(folder.glob("predictions-*.csv"))
        return pd.concat([pd.DataFrame(), *map(pd.read_csv, shards)])

    return run
