"""What a GPU would do with the graphs of a run, from the wheel's list of GPU kernels.

TensorFlow registers its GPU kernels on machines without one. An operation without a
kernel for its types runs on the CPU, and a kernel may want some of its tensors in host
memory: each of them is then copied in every step. Logical CPUs show neither.

Not covered: the operations between replicas (ACROSS_REPLICAS), which on GPUs are those
of NCCL, and what grappler or XLA make of a graph when it runs.
"""

import gc
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

# Bytes that may be copied unseen: labels, shapes, counts. A row of pixels here has
# 3,840, of features 2,048 at least, and a replica has 4 rows or 8.
LARGE = 512

ACROSS_REPLICAS = {"CollectiveReduceV2"}

# By operation: the most bytes of a tensor in host memory, and why that is right.
EXCEPTIONS: dict[str, tuple[int, str]] = {}


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
