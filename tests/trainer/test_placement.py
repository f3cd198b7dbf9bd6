"""What runs on a GPU, from the graphs: TensorFlow lists its kernels without one."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset import manifest
from tests.support.training import BATCH, batches, build, examples, strategy_of, train
from trainer.recipe import RECIPES, Augmentation

FLIPS = Augmentation(flip=True)
AUGMENTED = Augmentation(flip=True, crop=0.5, brightness=0.2, saturation=0.2)


def test_split_has_no_kernel_for_pixels(tf) -> None:
    """What the other tests look for is there to be found."""

    @tf.function
    def cut(images):
        return tf.split(images, 2)

    traced = cut.get_concrete_function(tf.TensorSpec([2, 3, 4, 3], tf.uint8))
    assert without_gpu_kernel(traced.graph.as_graph_def()) == {"Split"}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"augmentation": FLIPS, "dropout": 0.5},
        {"augmentation": AUGMENTED},
        {"accumulate": 2},
        {"trainable": "head", "accumulate": 2},
        {"precision": "mixed_float16"},
    ],
    ids=str,
)
def test_no_step_takes_pixels_to_the_cpu(tf, options: dict[str, Any]) -> None:
    made = build(1, **options)
    steps = recorded(lambda: train(tf, made, 1))
    evaluations = recorded(lambda: made[0].evaluate(batches(tf, BATCH)))
    for graphs in (steps, evaluations):
        assert graphs
        for graph in graphs:
            assert not without_gpu_kernel(graph)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_no_extraction_takes_pixels_to_the_cpu(
    tf, made_dataset: Path, tmp_path: Path, accumulate: int
) -> None:
    from trainer.cache import feature_extraction, features

    dataset = manifest.load(made_dataset)
    recipe = replace(RECIPES["article"], batch_size=BATCH, accumulate=accumulate)
    _, network, _ = build(1, accumulate=accumulate)
    graphs = recorded(
        lambda: feature_extraction.keep(
            network,
            strategy_of(1),
            dataset,
            "train",
            tmp_path / "kept",
            features=features.plan(recipe, dataset.image, dtype="uint8"),
            recipe=recipe,
        )
    )
    assert graphs
    for graph in graphs:
        assert not without_gpu_kernel(graph)


def test_no_prediction_takes_pixels_to_the_cpu(tf) -> None:
    from predictor.forward_pass import ForwardPass
    from predictor.inputs.inputs import Batch

    _, network, _ = build(1)
    forward = ForwardPass(network, strategy_of(1))
    images, _ = examples(BATCH)
    ids = [str(number) for number in range(BATCH)]
    batch = Batch(shard=0, ids=ids, images=images, rejects=[], last=True)
    graphs = recorded(lambda: list(forward.stream([batch])))
    assert graphs
    for graph in graphs:
        assert not without_gpu_kernel(graph)


def recorded(run: Callable[[], object]) -> list[Any]:
    """GraphDefs of what a function runs with convolutions in it: not of the input."""
    from tensorflow.python.eager import context

    context.context().enable_graph_collection()
    try:
        run()
        found = context.context().export_run_metadata().function_graphs
    finally:
        context.context().disable_graph_collection()
    graphs = [each.pre_optimization_graph for each in found]
    return [
        graph for graph in graphs if any(node.op == "Conv2D" for node in nodes(graph))
    ]


def without_gpu_kernel(graph: Any) -> set[str]:
    """The operations on uint8 that no GPU can do, in a GraphDef."""
    import tensorflow as tf
    from tensorflow.python.framework.kernels import get_registered_kernels_for_op

    def fits(node: Any, kernel: Any) -> bool:
        # DEFAULT is of all devices.
        return kernel.device_type in ("GPU", "DEFAULT") and all(
            node.attr[each.name].type in each.allowed_values.list.type
            for each in kernel.constraint
        )

    uint8 = tf.uint8.as_datatype_enum
    return {
        node.op
        for node in nodes(graph)
        if any(value.type == uint8 for value in node.attr.values())
        and not any(
            fits(node, kernel)
            for kernel in get_registered_kernels_for_op(node.op).kernel
        )
    }


def nodes(graph: Any) -> Iterator[Any]:
    """Those of a GraphDef and of all its functions."""
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def
