"""What a GPU would do with the graphs of a run, from the wheel's list of GPU kernels.

TensorFlow registers its GPU kernels on machines without one. An operation without a
kernel for its types runs on the CPU, and a kernel may want some of its tensors in host
memory: each of them is then copied in every step. Logical CPUs show neither.

Not covered: the operations between replicas (ACROSS_REPLICAS), which on GPUs are those
of NCCL, and what grappler or XLA make of a graph when it runs.
"""

import gc
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import HEIGHT, WIDTH
from test_loop import BATCH, examples, strategy_of

from pipeline.dataset import manifest
from pipeline.system.console import progress
from trainer.cache.policy import FEATURE_DTYPES
from trainer.recipe import CHOICES, NO_AUGMENTATION, RECIPES, Augmentation

# Bytes that may be copied unseen: labels, shapes, counts. A row of pixels here has
# 3,840, of features 2,048 at least, and a replica has 4 rows or 8.
LARGE = 512

ACROSS_REPLICAS = {"CollectiveReduceV2"}

# By operation: the most bytes of a tensor in host memory, and why that is right.
EXCEPTIONS: dict[str, tuple[int, str]] = {}

AUGMENTED = Augmentation(flip=True, crop=0.5, brightness=0.2, saturation=0.2)


class Finding(NamedTuple):
    """A tensor that would leave the device.

    Attributes:
        op: the operation that no GPU has for these types, or that wants it elsewhere.
        dtype: of the tensor.
        bytes: of the tensor; 0 where its shape is not known.
        why: `no kernel`, or the name of the argument in host memory.
    """

    op: str
    dtype: str
    bytes: int
    why: str


def findings(run: Callable[[], object]) -> set[Finding]:
    """Returns what is wrong with the graphs that a function makes and runs."""
    graphs = made_by(run)
    if not graphs:
        raise AssertionError("nothing was traced")
    found = {one for graph in graphs for op in graph.get_operations() for one in of(op)}
    return {
        one
        for one in found
        if one.op not in EXCEPTIONS or one.bytes > EXCEPTIONS[one.op][0]
    }


def made_by(run: Callable[[], object]) -> list[Any]:
    """Returns the graphs of steps, and of all functions in them; none of the input."""
    from tensorflow.python.framework.func_graph import FuncGraph

    def all_graphs() -> dict[int, Any]:
        return {id(one): one for one in gc.get_objects() if isinstance(one, FuncGraph)}

    before = all_graphs()  # holds them, so that no other graph takes an id
    run()
    made = [graph for key, graph in all_graphs().items() if key not in before]
    return [graph for graph in made if computes(graph)]


def computes(graph: Any) -> bool:
    """Whether a graph has a layer in it, or is a function of one that has."""
    while graph is not None:
        if {op.type for op in graph.get_operations()} & {"Conv2D", "MatMul"}:
            return True
        graph = getattr(graph, "outer_graph", None)
    return False


def of(op: Any) -> Iterator[Finding]:
    """Yields the tensors of an operation that a GPU would have to copy."""
    if op.type in ACROSS_REPLICAS:
        return
    kernel, tensors = gpu_kernel(op), [*op.inputs, *op.outputs]
    if kernel is None:
        yield Finding(op.type, "", 0, "no kernel")
        for tensor in tensors:
            yield Finding(op.type, tensor.dtype.name, size(tensor), "no kernel")
        return
    arguments = names(op, op.op_def.input_arg) + names(op, op.op_def.output_arg)
    for name, tensor in zip(arguments, tensors, strict=True):
        if name in kernel.host_memory_arg and size(tensor) > LARGE:
            yield Finding(op.type, tensor.dtype.name, size(tensor), name)


def gpu_kernel(op: Any) -> Any:
    """Returns the kernel that TensorFlow would take: of GPUs, else of all devices."""
    from tensorflow.python.framework.kernels import get_registered_kernels_for_op

    types = {name: types_of(value) for name, value in op.node_def.attr.items()}
    kind = op.type
    if kind == "Placeholder":  # becomes an argument of the function
        kind, types = "_Arg", {"T": types["dtype"]}
    kernels = get_registered_kernels_for_op(kind).kernel
    for device in ("GPU", "DEFAULT"):
        fitting = [
            kernel
            for kernel in kernels
            if kernel.device_type == device
            and not kernel.label
            and all(
                types[one.name] <= set(one.allowed_values.list.type)
                for one in kernel.constraint
            )
        ]
        if fitting:
            return max(fitting, key=lambda kernel: kernel.priority)
    return None


def types_of(value: Any) -> set[int]:
    """Returns the types that an attribute names: one, or a list of them."""
    return set(value.list.type) or {value.type}


def names(op: Any, definitions: Any) -> list[str]:
    """Returns the argument that each tensor of an operation belongs to."""
    found: list[str] = []
    for one in definitions:
        count = 1
        if one.number_attr:
            count = op.get_attr(one.number_attr)
        elif one.type_list_attr:
            count = len(op.get_attr(one.type_list_attr))
        found += [one.name] * count
    return found


def size(tensor: Any) -> int:
    """Returns the bytes of a tensor; 0 for handles, and where a side is not known."""
    if tensor.dtype.name in ("resource", "variant", "string"):
        return 0
    return tensor.dtype.size * (tensor.shape.num_elements() or 0)


class Made(NamedTuple):
    """A loop, and batches for it.

    Attributes:
        train: takes one step.
        evaluate: evaluates one batch.
        network: the model.
    """

    train: Callable[[], object]
    evaluate: Callable[[], object]
    network: Any


def prepare(
    *,
    replicas: int = 1,
    recipe: str = "article",
    cache: str = "decoded",
    source: Any = None,
    **fields: Any,
) -> Made:
    """Builds what `make train` runs, of a recipe with some other fields.

    Args:
        replicas: logical CPUs.
        recipe: its name.
        cache: `decoded`, or the dtype of cached features.
        source: of the features; without it, as the cache has them.
    """
    import tensorflow as tf

    from trainer import model
    from trainer.cache import features
    from trainer.training import optimizer
    from trainer.training.loop import Loop

    chosen = replace(RECIPES[recipe], batch_size=BATCH, **fields)
    phase = chosen.phases()[-1]
    strategy = strategy_of(replicas)
    with strategy.scope():
        network = model.build(
            height=HEIGHT, width=WIDTH, classes=6, weights="none", recipe=chosen
        )
        model.train_only(network, phase.trainable)
        updates = optimizer.build(chosen, phase, 10)
        updates.build(network.trainable_variables)
    rows, labels = examples(BATCH)
    if cache != "decoded":
        kept = features.plan(
            chosen, manifest.ImageContract(height=HEIGHT, width=WIDTH), dtype=cache
        )
        rows = {
            name: np.ones((BATCH, *shape), kind)
            for name, (kind, shape) in kept.columns.items()
        }
        source = source or features.source(network, kept)
    loop = Loop(
        network,
        updates,
        strategy,
        chosen,
        class_weights=np.ones(6) if chosen.class_weights else None,
        source=source,
    )
    batches = tf.data.Dataset.from_tensors((rows, labels))

    def take_step() -> None:
        steps = chosen.steps_per_execution
        with progress(steps * BATCH, "test") as bar:
            loop.train(loop.feed(batches.repeat(steps)), steps, bar=bar)

    return Made(take_step, lambda: loop.evaluate(batches), network)


def test_split_has_no_kernel_for_pixels(tf, monkeypatch: pytest.MonkeyPatch) -> None:
    """A negative control: what the first release had, put back."""
    from trainer.training import step

    monkeypatch.setattr(step, "_slices", tf.split)
    made = prepare(accumulate=2)
    found = findings(made.train)
    assert Finding("Split", "uint8", 4 * HEIGHT * WIDTH * 3, "no kernel") in found


def test_a_table_of_int32_is_in_host_memory(tf) -> None:
    """A negative control: what the first release had, put back."""
    from trainer.training.step import InputSource

    table = tf.identity(np.ones((100, 512), np.int32))

    def looked_up(rows: Any) -> Any:
        words = tf.gather(table, tf.cast(rows["features"][:, 0, 0, 0], tf.int64))
        return tf.reshape(tf.bitcast(words, tf.float32), [-1, 1, 1, 512])

    source = InputSource("block5_pool", looked_up)
    made = prepare(cache="float32", trainable="head", source=source)
    table_bytes = 100 * 512 * 4
    found = findings(made.train)
    assert Finding("Placeholder", "int32", table_bytes, "output") in found


CASES: list[dict[str, Any]] = [
    {},
    {"recipe": "demo"},
    {"recipe": "finetune", "replicas": 2},
    {"recipe": "finetune", "cache": "float16", "augmentation": NO_AUGMENTATION},
    {"augmentation": AUGMENTED, "accumulate": 2, "trainable": "all", "replicas": 2},
    {"precision": "mixed_float16", "replicas": 2},
    {"precision": "mixed_bfloat16", "cache": "uint8", "replicas": 2},
    {"cache": "float32", "trainable": "head"},
    {"jit": True, "steps_per_execution": 2},
]


EVERYTHING = [
    {"recipe": recipe, "precision": precision, "replicas": replicas, **of_input}
    for recipe, precision, replicas, of_input in itertools.product(
        RECIPES,
        CHOICES["precision"],
        (1, 2),
        (
            {},
            {"augmentation": NO_AUGMENTATION},
            {"augmentation": AUGMENTED},
            *(
                {"augmentation": NO_AUGMENTATION, "cache": dtype}
                for dtype in FEATURE_DTYPES
            ),
        ),
    )
]


@pytest.mark.parametrize(
    "options",
    [*CASES, *(pytest.param(one, marks=pytest.mark.slow) for one in EVERYTHING)],
    ids=str,
)
def test_training_and_evaluation_stay_on_the_device(
    tf, options: dict[str, Any]
) -> None:
    made = prepare(**options)
    assert findings(made.train) == set()
    assert findings(made.evaluate) == set()


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize(
    ("dtype", "fields"),
    [
        ("float32", {}),
        ("float16", {"precision": "mixed_float16", "accumulate": 2}),
        ("uint8", {"precision": "mixed_bfloat16"}),
    ],
    ids=str,
)
def test_feature_extraction_stays_on_the_device(
    tf,
    made_dataset: Path,
    tmp_path: Path,
    dtype: str,
    fields: dict[str, Any],
    replicas: int,
) -> None:
    from trainer.cache import feature_extraction, features

    dataset = manifest.load(made_dataset)
    recipe = replace(RECIPES["article"], batch_size=BATCH, **fields)
    network = prepare(replicas=replicas, **fields).network

    def extract() -> None:
        feature_extraction.keep(
            network,
            strategy_of(replicas),
            dataset,
            "train",
            tmp_path / "kept",
            features=features.plan(recipe, dataset.image, dtype=dtype),
            recipe=recipe,
        )

    assert findings(extract) == set()


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("precision", CHOICES["precision"])
def test_prediction_stays_on_the_device(tf, precision: str, replicas: int) -> None:
    from predictor.forward_pass import ForwardPass
    from predictor.inputs.inputs import Batch

    network = prepare(replicas=replicas, precision=precision).network
    forward = ForwardPass(network, strategy_of(replicas))
    images, _ = examples(BATCH)
    ids = [str(number) for number in range(BATCH)]
    batch = Batch(shard=0, ids=ids, images=images, rejects=[], last=True)
    assert findings(lambda: list(forward.stream([batch]))) == set()
