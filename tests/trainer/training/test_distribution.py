"""The devices of a run: what they must have, and what is said when they fail."""

import pytest

from pipeline.system.errors import RunError, UsageError


@pytest.fixture
def distribution(tf):
    from trainer.training import distribution

    return distribution


def test_bfloat16_is_refused_where_a_gpu_has_none(distribution) -> None:
    old = distribution.Gpu("GPU:0", "Tesla T4", (7, 5))
    new = distribution.Gpu("GPU:1", "H100", (9, 0))
    unknown = distribution.Gpu("GPU:2", "a GPU", None)
    with pytest.raises(UsageError, match=r"Tesla T4, compute capability 7\.5.*float16"):
        distribution.check_precision("mixed_bfloat16", [new, old])
    distribution.check_precision("mixed_bfloat16", [new, unknown])
    distribution.check_precision("mixed_float16", [old])
    distribution.check_precision("mixed_bfloat16", [])


def test_micro_batches_are_no_replicas(distribution) -> None:
    message = "by 2 replicas with 3 micro-batches each .--accumulate.*: 60 and 66"
    with pytest.raises(UsageError, match=message):
        distribution.check_batch_size(64, 2, 3)
    distribution.check_batch_size(60, 2, 3)


@pytest.mark.integration
def test_too_little_memory_has_its_advice(tf, distribution) -> None:
    """What TensorFlow really raises, here of the CPU's memory."""
    with (
        pytest.raises(RunError, match=r"a batch of 64 does not fit.*--accumulate=2"),
        distribution.naming_device_errors(64),
    ):
        tf.zeros([1 << 50, 1 << 10])


def test_a_device_that_fails_is_no_damage(tf, distribution) -> None:
    with (
        pytest.raises(RunError, match=r"a device failed .*CUDNN_STATUS_INTERNAL"),
        distribution.naming_device_errors(64),
    ):
        raise tf.errors.InternalError(None, None, "CUDNN_STATUS_INTERNAL_ERROR\nat x")


@pytest.mark.parametrize(
    "message", ["/data/train-0.tfrecord; Input/output error", "No space left on device"]
)
def test_what_says_more_passes(tf, distribution, message: str) -> None:
    error = tf.errors.ResourceExhaustedError(None, None, message)
    with (
        pytest.raises(tf.errors.ResourceExhaustedError),
        distribution.naming_device_errors(64),
    ):
        raise error


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_gpus_that_a_variable_hides_are_said_so(
    distribution, monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    monkeypatch.setattr(distribution, "in_machine", lambda: "GPU 0: H100")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    with pytest.raises(RunError, match=f"CUDA_VISIBLE_DEVICES='{hidden}' hides all"):
        distribution.strategy()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with pytest.raises(RunError, match="that TensorFlow does not see"):
        distribution.strategy()
