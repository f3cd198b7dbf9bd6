"""The devices of this node, as one MirroredStrategy."""

import subprocess

import tensorflow as tf

from pipeline.system.errors import RunError, UsageError

ALL_REDUCE = {
    "nccl": tf.distribute.NcclAllReduce,
    "hierarchical_copy": tf.distribute.HierarchicalCopyAllReduce,
    "reduce_to_one": tf.distribute.ReductionToOneDevice,
}


def strategy(
    *,
    virtual_devices: int | None = None,
    cpu: bool = False,
    all_reduce: str = "nccl",
) -> tf.distribute.MirroredStrategy:
    """All GPUs; without one, the CPU. Says in one line what it took.

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
    print(f"replicas: {chosen.num_replicas_in_sync} on {names}{note}")
    return chosen


def check_batch_size(batch_size: int, replicas: int) -> None:
    """Refuses a global batch that cannot be cut evenly.

    Raises:
        UsageError: with the nearest sizes that can.
    """
    if batch_size % replicas == 0:
        return
    below = batch_size // replicas * replicas
    nearest = [str(size) for size in (below, below + replicas) if size]
    raise UsageError(
        f"--batch_size={batch_size} is global and does not divide by {replicas} "
        f"replicas; the nearest that do: {' and '.join(nearest)}"
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
    """The GPUs that the driver lists, a line each; empty without any."""
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return listing.stdout.decode(errors="replace").strip()


def _refuse_hidden_gpus() -> None:
    """Days on a CPU beside idle GPUs are worse than an error."""
    if found := in_machine():
        raise RunError(
            f"this machine has GPUs that TensorFlow does not see:\n{found}\nInstall "
            "the extra `gpu` (`make install` does where nvidia-smi works), or use "
            "--cpu."
        )
