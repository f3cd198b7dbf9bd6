"""The devices of this node, as one MirroredStrategy."""

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import tensorflow as tf

from pipeline.system import console, startup_log
from pipeline.system.errors import RunError, UsageError

ALL_REDUCE = {
    "nccl": tf.distribute.NcclAllReduce,
    "hierarchical_copy": tf.distribute.HierarchicalCopyAllReduce,
    "reduce_to_one": tf.distribute.ReductionToOneDevice,
}


# NVIDIA's Ampere; TensorFlow emulates bfloat16 on Volta and Turing, if at all.
_BFLOAT16_SINCE = (8, 0)


class Gpu(NamedTuple):
    """A GPU, as TensorFlow sees it."""

    device: str
    name: str
    compute_capability: tuple[int, int] | None


@startup_log.kept()
def strategy(
    *,
    virtual_devices: int | None = None,
    cpu: bool = False,
    all_reduce: str = "nccl",
) -> tf.distribute.MirroredStrategy:
    """Takes all GPUs; without one, the CPU. Says in one line what it took.

    To be called before TensorFlow has done anything.

    Args:
        virtual_devices: splits the CPU into as many logical devices instead.
        cpu: use the CPU even where there are GPUs.
        all_reduce: how GPUs sum gradients, one of ALL_REDUCE.

    Raises:
        RunError: the machine has GPUs, but TensorFlow does not see them.
    """
    gpus = [] if cpu or virtual_devices else tf.config.list_physical_devices("GPU")
    if gpus:
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        chosen = tf.distribute.MirroredStrategy(
            cross_device_ops=ALL_REDUCE[all_reduce]()
        )
    else:
        if not cpu and not virtual_devices:
            _refuse_hidden_gpus()
        chosen = _on_cpu(virtual_devices or 1)
    names = ", ".join(
        tf.DeviceSpec.from_string(device).device_type
        + f":{tf.DeviceSpec.from_string(device).device_index}"
        for device in chosen.extended.worker_devices
    )
    note = "" if gpus else " (no GPU)" if not virtual_devices else " (logical devices)"
    console.say(f"replicas: {chosen.num_replicas_in_sync} on {names}{note}")
    return chosen


def devices_in_words(strategy: tf.distribute.Strategy) -> list[str]:
    """Returns the device of each replica: what a GPU is called, or `CPU:0`."""
    gpus = tf.config.list_physical_devices("GPU")
    found = []
    for name in strategy.extended.worker_devices:
        device = tf.DeviceSpec.from_string(name)
        words = f"{device.device_type}:{device.device_index}"
        if device.device_type == "GPU":
            details = tf.config.experimental.get_device_details(
                gpus[device.device_index]
            )
            words += f" {details.get('device_name', '')}".rstrip()
        found.append(words)
    return found


def check_batch_size(batch_size: int, replicas: int, accumulate: int = 1) -> None:
    """Refuses a global batch that cannot be cut evenly.

    Args:
        batch_size: global.
        replicas: of the strategy.
        accumulate: micro-batches of each replica.

    Raises:
        UsageError: with the nearest sizes that can.
    """
    parts = replicas * accumulate
    if batch_size % parts == 0:
        return
    below = batch_size // parts * parts
    nearest = [str(size) for size in (below, below + parts) if size]
    micro = f" with {accumulate} micro-batches each (--accumulate)"
    raise UsageError(
        f"--batch_size={batch_size} is global and does not divide by {replicas} "
        f"replicas{micro if accumulate > 1 else ''}; the nearest that do: "
        f"{' and '.join(nearest)}"
    )


@startup_log.kept()
def gpus() -> list[Gpu]:
    """Returns the GPUs that TensorFlow sees."""
    found = []
    for device in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(device)
        name = details.get("device_name", "a GPU")
        found.append(Gpu(device.name, name, details.get("compute_capability")))
    return found


def without_bfloat16(found: Sequence[Gpu]) -> list[str]:
    """Describes the GPUs that have no bfloat16; those that tell nothing are not."""
    return [
        f"{gpu.device} ({gpu.name}, compute capability "
        f"{'.'.join(map(str, gpu.compute_capability))})"
        for gpu in found
        if gpu.compute_capability and gpu.compute_capability < _BFLOAT16_SINCE
    ]


def check_precision(precision: str, found: Sequence[Gpu]) -> None:
    """Refuses bfloat16 on GPUs that compute it by way of float32, or not at all.

    Raises:
        UsageError: with the GPUs, and what to use.
    """
    lacking = without_bfloat16(found)
    if precision == "mixed_bfloat16" and lacking:
        raise UsageError(
            f"--precision=mixed_bfloat16 (the default of --recipe=finetune) needs "
            f"compute capability 8.0; there is {', '.join(lacking)}. Use "
            "--precision=mixed_float16, which these GPUs have, or float32."
        )


def _on_cpu(count: int) -> tf.distribute.MirroredStrategy:
    (processor,) = tf.config.list_physical_devices("CPU")
    try:
        tf.config.set_visible_devices([], "GPU")
        tf.config.set_logical_device_configuration(
            processor, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError:  # TensorFlow has started; perhaps with enough of them
        if len(tf.config.list_logical_devices("CPU")) < count:
            raise
    return tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(count)])


def in_machine() -> str:
    """Returns the GPUs that the driver lists, a line each; empty without any."""
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return listing.stdout.decode(errors="replace").strip()


def _refuse_hidden_gpus() -> None:
    """Days on a CPU beside idle GPUs are worse than an error.

    Raises:
        RunError: with what hides the GPUs.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if (found := in_machine()) and hidden is not None:
        raise RunError(
            f"CUDA_VISIBLE_DEVICES={hidden!r} hides all GPUs of this machine:\n{found}"
            "\nUnset it or name some of them, or use --cpu."
        )
    if found:
        raise RunError(
            f"this machine has GPUs that TensorFlow does not see:\n{found}\nInstall "
            "the extra `gpu` (`make install` does where nvidia-smi works), or use "
            "--cpu."
        )


@contextlib.contextmanager
def naming_device_errors(batch_size: int) -> Iterator[None]:
    """Tells a failure of a device from one of its input, at once.

    An error that names a shard, or a full disk, passes: it says what is wrong.

    Args:
        batch_size: of the run, for the advice.

    Raises:
        RunError: the device has not enough memory, or it failed.
    """
    try:
        yield
    except (tf.errors.ResourceExhaustedError, tf.errors.InternalError) as error:
        if ".tfrecord" in error.message or os.strerror(errno.ENOSPC) in error.message:
            raise
        reason = error.message.splitlines()[0]
        if isinstance(error, tf.errors.ResourceExhaustedError):
            raise RunError(
                f"a batch of {batch_size} does not fit into the memory of the device "
                f"(TensorFlow: {reason}). Use --accumulate=2, or more, which computes "
                "the same with less memory, or a smaller --batch_size. Both begin "
                "another run, in another MODEL folder; what was saved in this one is "
                "kept."
            ) from error
        raise RunError(
            f"a device failed (TensorFlow: {reason}). What was saved is kept; the same "
            "command goes on. If it fails again, `make doctor` tries the devices."
        ) from error
