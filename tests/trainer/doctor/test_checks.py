"""The findings about a node, each from what it is about."""

import os
import re
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.support.photos import HEIGHT, WIDTH
from tests.support.processes import Program
from trainer.doctor import replica_test
from trainer.doctor.replica_test import ChildError
from trainer.options import DoctorOptions
from trainer.recipe import RECIPES

GPUS = "GPU 0: NVIDIA H100 (UUID: x)\nGPU 1: NVIDIA H100 (UUID: y)"


@pytest.fixture
def doctor(tf):
    from trainer.doctor import checks

    return checks


def hang() -> tuple[int, float]:
    time.sleep(60)
    return 0, 0.0


def wrong() -> tuple[int, float]:
    raise ChildError("1 + … + 2 was summed to [1.0, 2.0]")


def crash() -> float:
    import os

    os._exit(3)


def astray() -> list[str]:
    """As if a batch stayed on the first of two devices."""
    import tensorflow as tf

    from trainer.doctor import replica_test
    from trainer.training import device_feed

    def on_the_first(parts, strategy):
        with tf.device(strategy.extended.worker_devices[0]):
            here = [tf.nest.map_structure(tf.identity, part) for part in parts]
        return strategy.experimental_distribute_values_from_function(
            lambda context: here[context.replica_id_in_sync_group]
        )

    device_feed._on_devices = on_the_first
    return [one for one in replica_test.placement() if one.startswith("uint8")]


def far_apart() -> float:
    return 0.2


def short() -> tuple[float, float]:
    return 0.012, 0.12


def long() -> tuple[float, float]:
    return 0.024, 0.012


def test_this_node_can_train(program: Program, made_dataset: Path) -> None:
    result = program("trainer", "doctor", f"--dataset={made_dataset}")
    assert result.returncode == 0, result.stdout
    *findings, verdict, following = result.stdout.splitlines()
    assert verdict == "this node can train"
    assert following.startswith("next: ")
    assert {line.split()[0] for line in findings} <= {"ok", "advice"}
    for what in (
        *(
            "TensorFlow",
            "CUDA",
            "no GPU",
            "a sum over 2 replicas: ",
            "all replicas and 1",
            "batches and weights lie on the devices that use them",
        ),
        *("files may be open", "reading DATASET", "decoding DATASET"),
        *("cache: features, on disk: block4_pool as float32", "the disk of"),
    ):
        assert sum(what in line for line in findings) >= 1, what


@pytest.mark.integration
def test_a_hang_is_a_finding(doctor) -> None:
    found = doctor.all_reduce(hang, timeout=8)
    assert found.level == doctor.PROBLEM
    assert "hung for 8 s" in found.text
    assert "NCCL_P2P_DISABLE=1" in found.text


@pytest.mark.integration
def test_a_wrong_sum_is_a_finding(doctor) -> None:
    found = doctor.all_reduce(wrong)
    assert found.level == doctor.PROBLEM
    assert "was summed to [1.0, 2.0]" in found.text


@pytest.mark.integration
def test_a_crash_is_a_finding(doctor) -> None:
    found = doctor.parity(crash)
    assert (found.level, "exit code 3" in found.text) == (doctor.PROBLEM, True)


@pytest.mark.integration
def test_replicas_that_differ_are_a_finding(doctor) -> None:
    found = doctor.parity(far_apart)
    assert found.level == doctor.PROBLEM
    assert "2.0e-01 of their way apart" in found.text


@pytest.mark.integration
def test_a_batch_on_another_device_is_a_finding(doctor) -> None:
    found = doctor.placement(astray)
    assert found.level == doctor.PROBLEM
    assert "1 tensors are copied in every step, such as: uint8 of" in found.text


@pytest.mark.integration
def test_copies_are_compared_with_a_step(doctor) -> None:
    """Here on two logical CPUs, with few and small images."""
    recipe = replace(RECIPES["demo"], batch_size=4)
    found = doctor.copies(partial(replica_test.copies, recipe, HEIGHT, WIDTH))
    assert found.level in (doctor.OK, doctor.ADVICE), found.text
    assert re.search(
        r"is copied to the devices in \d+\.\d ms, \d+% of a step", found.text
    )


@pytest.mark.parametrize(
    ("times", "level", "words"),
    [
        (short, "ok", "12.0 ms, 10% of a step of 120.0 ms, and meanwhile"),
        (long, "advice", "24.0 ms, 200% of a step of 12.0 ms: training waits"),
        (crash, "problem", "copies of a batch: its process ended with exit code 3"),
    ],
)
def test_copies_that_take_long_are_said(doctor, times, level: str, words: str) -> None:
    found = doctor.copies(times)
    assert (found.level, words in found.text) == (level, True), found.text


def test_hidden_gpus_are_a_problem(doctor) -> None:
    from trainer.training.distribution import Gpu

    def levels(seen: int, visible: str | None = None) -> list[str]:
        gpus = [Gpu(f"GPU:{i}", "H100", (9, 0)) for i in range(seen)]
        how = {"precision": "mixed_bfloat16", "visible": visible}
        return [finding.level for finding in doctor.gpus(gpus, GPUS, **how)]

    assert doctor.PROBLEM in levels(0)
    assert doctor.PROBLEM not in levels(2)
    # Hidden on purpose, as the doctor itself advises.
    assert doctor.PROBLEM not in levels(1, "0")
    assert set(levels(0, "")) == {doctor.OK, doctor.ADVICE}


def test_gpus_without_bfloat16_are_a_problem(doctor) -> None:
    from trainer.training.distribution import Gpu

    old = [Gpu("GPU:0", "Tesla T4", (7, 5))]
    for precision, problems in (("mixed_bfloat16", 1), ("mixed_float16", 0)):
        found = doctor.gpus(old, "", precision=precision, visible=None)
        bad = [one.text for one in found if one.level == doctor.PROBLEM]
        assert len(bad) == problems
        assert all("Tesla T4, compute capability 7.5" in text for text in bad)


def flip(path: Path) -> None:
    """Changes a byte, as a disk does: neither size nor time nor inode tell."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_byte_of_a_cache_that_has_changed_is_named(
    doctor, made_dataset: Path, tmp_path: Path, capsys
) -> None:
    from pipeline.dataset import manifest
    from trainer.cache import content, on_disk

    def fill() -> None:
        pixels = content.pixels(manifest.load(made_dataset), "train")
        on_disk.fill(pixels, tmp_path / "cache" / "train")

    assert list(doctor.complete_caches(tmp_path / "cache")) == []
    fill()
    (found,) = doctor.complete_caches(tmp_path / "cache")
    assert found.level == doctor.OK
    path = tmp_path / "cache" / "train" / "pixels.npy"
    written = path.read_bytes()
    flip(path)
    fill()  # a run does not see it
    assert capsys.readouterr().out.count("is complete\n") == 1
    (found,) = doctor.complete_caches(tmp_path / "cache")
    assert found.level == doctor.PROBLEM
    assert f"{path} is not as it was written: a byte from row 0" in found.text
    assert f"Remove {path.parent}: " in found.text
    shutil.rmtree(path.parent)
    fill()
    assert path.read_bytes() == written


@pytest.mark.parametrize(("free", "level"), [(10**8, "problem"), (10**12, "ok")])
def test_a_disk_that_is_too_small(doctor, free: int, level: str) -> None:
    assert doctor.disk(Path("/data"), free).level == level


def test_problems_are_counted(doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [doctor.Finding(doctor.PROBLEM, "x"), doctor.Finding(doctor.ADVICE, "y")]
    monkeypatch.setattr(doctor, "findings", lambda *_: iter(found))
    with pytest.raises(doctor.RunError, match="1 problems"):
        doctor.run(DoctorOptions(recipe=RECIPES["article"]))
