"""Writer of ONNX models: a traced graph of aten operations, all of static shapes, as bytes.

Why it is our own: torch's exporter writes all eight static methods too, once `aten.convolution_backward` has a
translation (ConvTranspose with the right output padding), and its maps are equal to 8e-6 of their range. But its graphs
are slower: in OpenVINO up to 2 % in float32 and 1.4 to 1.6 times in bfloat16 unless batch norms are folded first, in
ONNX Runtime up to 9 %; and they take it 3 to 17 s to make, this file one. bfloat16 is what makes the paper's maps fast.
So the file stays until the exporter folds batch norms into gradients.

It knows the operations of convolutional networks and of the methods that look into them, and writes gradients as
inference engines compute them fast: a convolution's as a plain convolution with flipped and transposed weights, a batch
norm's as a factor of those weights, and up-sampling as two matrix products. Whatever depends on weights alone is
computed here and stored. Operations in place, and any that is not listed, are refused by name.
"""

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

aten = torch.ops.aten
OPSET, IR_VERSION = 18, 9
ARITHMETIC: dict[Any, str] = {
    aten.add.Tensor: "Add",
    aten.sub.Tensor: "Sub",
    aten.mul.Tensor: "Mul",
    aten.mul.Scalar: "Mul",
    aten.div.Tensor: "Div",
    aten.div.Scalar: "Div",
    aten.pow.Tensor_Scalar: "Pow",
}
COMPARISONS: dict[Any, str] = {
    aten.eq.Tensor: "Equal",
    aten.gt.Scalar: "Greater",
    aten.ge.Scalar: "GreaterOrEqual",
    aten.lt.Scalar: "Less",
    aten.le.Scalar: "LessOrEqual",
}
UNARY: dict[Any, str] = {aten.relu.default: "Relu", aten.sigmoid.default: "Sigmoid", aten.abs.default: "Abs"}
SAME = {aten.detach.default, aten.clone.default, aten.alias.default}
RESHAPED = {aten.view.default, aten._unsafe_view.default, aten.unsqueeze.default, aten.squeeze.dim}
REDUCED: dict[Any, str] = {
    aten.sum.dim_IntList: "ReduceSum",
    aten.sum.default: "ReduceSum",
    aten.mean.dim: "ReduceMean",
    aten.amax.default: "ReduceMax",
    aten.amin.default: "ReduceMin",
}
FILLED: dict[Any, int] = {aten.zeros_like.default: 0, aten.new_zeros.default: 0, aten.ones_like.default: 1}


class UnknownOperationError(ValueError):
    """Operation without a translation to ONNX; torch computes the graph instead."""


def write_onnx(graph: fx.GraphModule) -> bytes:
    """Write a graph as traced by `make_fx`: its placeholders become the inputs, its one result the output "map".

    Raises:
        UnknownOperationError: For an operation that is not listed here.
    """
    import onnx

    writer = _Writer(graph)
    for node in graph.graph.nodes:
        writer.write(node)
    inputs = [
        onnx.helper.make_tensor_value_info(node.name, _onnx_type(_dtype(node)), _shape(node))
        for node in graph.graph.nodes
        if node.op == "placeholder"
    ]
    outputs = [onnx.helper.make_tensor_value_info("map", _onnx_type(writer.result[0]), writer.result[1])]
    graph_proto = onnx.helper.make_graph(writer.nodes, "map", inputs, outputs, writer.constants)
    opset = onnx.helper.make_opsetid("", OPSET)
    return onnx.helper.make_model(graph_proto, opset_imports=[opset], ir_version=IR_VERSION).SerializeToString()


def _dtype(node: fx.Node) -> torch.dtype:
    return node.meta["val"].dtype


def _shape(node: fx.Node) -> list[int]:
    return [int(length) for length in node.meta["val"].shape]


def _onnx_type(dtype: torch.dtype) -> int:
    import onnx

    return onnx.helper.np_dtype_to_tensor_dtype(torch.zeros(0, dtype=dtype).numpy().dtype)


class _Writer:
    """ONNX nodes and constants written so far, and the name of each node of the traced graph among them."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.known: dict[fx.Node, Any] = {}
        """Node -> its value, where that depends on no input."""
        self.names: dict[fx.Node, Any] = {}
        """Node -> its name, or a tuple of names where it has several results."""
        self.result: tuple[torch.dtype, list[int]] = (torch.float32, [])
        """Type and shape of the output."""

    def write(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self.names[node] = node.name
        elif node.op == "get_attr":
            self.known[node] = operator.attrgetter(str(node.target))(self.graph)
        elif node.op == "output":
            (result,) = node.all_input_nodes
            self.add("Identity", self.value(result), name="map")
            self.result = (_dtype(result), _shape(result))
        elif node.target is operator.getitem and node.args[0] in self.names:
            self.names[node] = self.names[node.args[0]][node.args[1]]  # pyright: ignore[reportArgumentType]
        elif all(used in self.known for used in node.all_input_nodes):
            self.known[node] = self._compute(node)
        else:
            self.names[node] = self._operation(node)

    def add(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node with one result; return the result's name."""
        import onnx

        name = name or f"{kind}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(kind, list(inputs), [name], name=f"node_{name}", **attributes))
        return name

    def constant(self, value: Any, dtype: torch.dtype) -> str:
        """Store numbers; return their name."""
        import onnx

        name = f"constant_{len(self.constants)}"
        array = torch.as_tensor(value, dtype=dtype).detach().contiguous().numpy()
        self.constants.append(onnx.numpy_helper.from_array(array, name))
        return name

    def axes(self, values: Sequence[int]) -> str:
        return self.constant(list(values), torch.int64)

    def value(self, argument: Any, dtype: torch.dtype | None = None) -> str:
        """Return the name of a node's result, or of a number stored for it, as `dtype`."""
        if not isinstance(argument, fx.Node):
            return self.constant(argument, dtype or torch.float32)
        if argument in self.known:
            return self.constant(self.known[argument], dtype or _dtype(argument))
        name = self.names[argument]
        if dtype is None or dtype == _dtype(argument):
            return name
        return self.add("Cast", name, to=_onnx_type(dtype))

    def shaped(self, name: str, shape: Sequence[int]) -> str:
        return self.add("Reshape", name, self.axes(shape))

    def _compute(self, node: fx.Node) -> Any:
        assert callable(node.target), node
        arguments = fx.map_arg((node.args, node.kwargs), lambda used: self.known[used])
        with torch.no_grad():
            return node.target(*arguments[0], **arguments[1])  # pyright: ignore[reportIndexIssue]

    def _operation(self, node: fx.Node) -> Any:
        if node.target not in OPERATIONS:
            raise UnknownOperationError(f"{node.target} is not written to ONNX here; torch computes this graph itself")
        return OPERATIONS[node.target](self, node, *node.args)


def _arithmetic(to: _Writer, node: fx.Node, *operands: Any) -> str:
    assert node.kwargs.get("alpha", 1) == 1, node
    return to.add(ARITHMETIC[node.target], *(to.value(operand, _dtype(node)) for operand in operands))


def _comparison(to: _Writer, node: fx.Node, *operands: Any) -> str:
    kind = reduce(torch.promote_types, (_dtype(operand) for operand in operands if isinstance(operand, fx.Node)))
    return to.add(COMPARISONS[node.target], *(to.value(operand, kind) for operand in operands))


def _unary(to: _Writer, node: fx.Node, x: fx.Node) -> str:
    return to.add(UNARY[node.target], to.value(x))


def _reduction(to: _Writer, node: fx.Node, x: fx.Node, *how: Any) -> str:
    defaults: tuple[Any, Any] = (range(len(_shape(x))), False)
    axes, keep = (*how, *defaults[len(how) :])
    return to.add(REDUCED[node.target], to.value(x, _dtype(node)), to.axes(axes), keepdims=int(bool(keep)))


def _select(to: _Writer, node: fx.Node, x: fx.Node, axis: int, index: int) -> str:
    return to.add("Gather", to.value(x), to.constant(index, torch.int64), axis=axis)


def _slice(to: _Writer, node: fx.Node, x: fx.Node, axis: int, *bounds: int) -> str:
    start, end = bounds
    return to.add("Slice", to.value(x), to.axes([start]), to.axes([end]), to.axes([axis]))


def _permute(to: _Writer, node: fx.Node, x: fx.Node, axes: Sequence[int]) -> str:
    return to.add("Transpose", to.value(x), perm=list(axes))


def _transpose(to: _Writer, node: fx.Node, x: fx.Node, first: int = 0, second: int = 1) -> str:
    axes = list(range(len(_shape(x))))
    axes[first], axes[second] = axes[second], axes[first]
    return _permute(to, node, x, axes)


def _concatenate(to: _Writer, node: fx.Node, parts: Sequence[fx.Node], axis: int = 0) -> str:
    return to.add("Concat", *(to.value(part, _dtype(node)) for part in parts), axis=axis)


def _stack(to: _Writer, node: fx.Node, parts: Sequence[fx.Node], axis: int = 0) -> str:
    shape = [1 if i == axis else length for i, length in enumerate(_shape(node))]
    return to.add("Concat", *(to.shaped(to.value(part), shape) for part in parts), axis=axis)


def _expand(to: _Writer, node: fx.Node, x: fx.Node, _size: Sequence[int]) -> str:
    return to.add("Expand", to.value(x), to.axes(_shape(node)))


def _index(to: _Writer, node: fx.Node, x: fx.Node, indices: Sequence[fx.Node]) -> str:
    if len(indices) != 1:
        raise UnknownOperationError(f"{node.target} with {len(indices)} indices is not written to ONNX here")
    return to.add("Gather", to.value(x), to.value(indices[0]), axis=0)


def _product(to: _Writer, node: fx.Node, first: fx.Node, second: fx.Node) -> str:
    return to.add("MatMul", to.value(first), to.value(second))


def _linear(to: _Writer, node: fx.Node, bias: fx.Node, first: fx.Node, second: fx.Node) -> str:
    return to.add("Gemm", to.value(first), to.value(second), to.value(bias))


def _convolution(to: _Writer, node: fx.Node, x: fx.Node, weight: fx.Node, bias: fx.Node | None, *how: Any) -> str:
    strides, padding, dilations, transposed, _output_padding, groups = how
    if transposed:
        raise UnknownOperationError(f"{node.target} transposed is not written to ONNX here")
    inputs = [to.value(x), to.value(weight), *([] if bias is None else [to.value(bias)])]
    return to.add("Conv", *inputs, strides=strides, pads=[*padding, *padding], dilations=dilations, group=groups)


def _convolution_backward(
    to: _Writer, node: fx.Node, gradient: fx.Node, x: fx.Node, weight: fx.Node, _bias_sizes: Any, *how: Any
) -> tuple[str, None, None]:
    """Write the gradient of the input: each output place's kernel, turned round, over the gradients around it."""
    strides, padding, dilations, transposed, _output_padding, groups, (_, of_weight, of_bias) = how
    if transposed or groups != 1 or set(dilations) != {1} or of_weight or of_bias:
        raise UnknownOperationError(f"{node.target} {how} is not written to ONNX here")
    factor, gradient = _batch_norm_behind(to, gradient)
    kernel = to.known[weight] * (1 if factor is None else factor[:, None, None, None])
    name, dtype = to.value(gradient), _dtype(weight)
    if set(strides) == {1}:
        turned = to.constant(kernel.flip(2, 3).transpose(0, 1), dtype)
        pads = [length - 1 - pad for length, pad in zip(kernel.shape[2:], padding, strict=True)]
        return to.add("Conv", name, turned, pads=[*pads, *pads]), None, None
    sizes = zip(_shape(x)[2:], _shape(gradient)[2:], strides, padding, kernel.shape[2:], strict=True)
    rest = [size - ((out - 1) * stride - 2 * pad + length) for size, out, stride, pad, length in sizes]
    spread = {"strides": strides, "pads": [*padding, *padding], "output_padding": rest}
    return to.add("ConvTranspose", name, to.constant(kernel, dtype), **spread), None, None


def _batch_norm(to: _Writer, node: fx.Node, *arguments: Any) -> tuple[str, None, None]:
    *inputs, training, _momentum, epsilon = arguments  # inputs: x, weight, bias, mean, variance
    assert not training, "methods refuse a model in training mode"
    return to.add("BatchNormalization", *(to.value(one) for one in inputs), epsilon=epsilon), None, None


def _batch_norm_backward(to: _Writer, node: fx.Node, gradient: fx.Node, *_rest: Any) -> tuple[str, None, None]:
    factor = _batch_norm_factor(to, node)[:, None, None]
    return to.add("Mul", to.value(gradient), to.constant(factor, _dtype(gradient))), None, None


def _batch_norm_factor(to: _Writer, node: fx.Node) -> Tensor:
    """Return what a batch norm in eval mode multiplies each channel by, (C,)."""
    weight, var, epsilon = node.args[2], node.args[4], node.args[8]
    return to.known[weight] * torch.rsqrt(to.known[var] + epsilon)  # pyright: ignore[reportArgumentType]


def _batch_norm_behind(to: _Writer, gradient: fx.Node) -> tuple[Tensor | None, fx.Node]:
    """Return the factor of the batch norm that a convolution's gradient comes through, and what it multiplies."""
    source = gradient.args[0] if gradient.target is operator.getitem else None
    if isinstance(source, fx.Node) and source.target is aten.native_batch_norm_backward.default:
        behind = source.args[0]
        assert isinstance(behind, fx.Node)
        return _batch_norm_factor(to, source), behind
    return None, gradient


def _max_pool(to: _Writer, node: fx.Node, x: fx.Node, kernel: Sequence[int], *how: Any) -> tuple[str, None]:
    stride, padding = (*how, (0, 0))[:2]
    return to.add("MaxPool", to.value(x), kernel_shape=kernel, strides=stride, pads=[*padding, *padding]), None


def _upsample(to: _Writer, node: fx.Node, x: fx.Node, size: Sequence[int], align_corners: bool, *_scales: Any) -> str:
    """Write rows @ x @ columns: bilinear interpolation is linear in each direction."""
    rows, columns = (
        F.interpolate(torch.eye(old)[None], size=new, mode="linear", align_corners=align_corners)[0]  # (old, new)
        for old, new in zip(_shape(x)[2:], size, strict=True)
    )
    across = to.add("MatMul", to.value(x), to.constant(columns, _dtype(x)))
    return to.add("MatMul", to.constant(rows.T, _dtype(x)), across)


def _where(to: _Writer, node: fx.Node, condition: fx.Node, first: Any, second: Any) -> str:
    return to.add("Where", to.value(condition), to.value(first, _dtype(node)), to.value(second, _dtype(node)))


def _gather(to: _Writer, node: fx.Node, x: fx.Node, axis: int, index: fx.Node) -> str:
    return to.add("GatherElements", to.value(x), to.value(index), axis=axis)


def _scatter_add(to: _Writer, node: fx.Node, x: fx.Node, axis: int, *added: fx.Node) -> str:
    index, values = (to.value(one) for one in added)
    return to.add("ScatterElements", to.value(x), index, values, axis=axis, reduction="add")


def _softmax(to: _Writer, node: fx.Node, x: fx.Node, axis: int, _half_to_float: bool) -> str:
    return to.add("Softmax", to.value(x), axis=axis)


OPERATIONS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys(ARITHMETIC, _arithmetic),
    **dict.fromkeys(COMPARISONS, _comparison),
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys(REDUCED, _reduction),
    **dict.fromkeys(SAME, lambda to, node, x: to.value(x)),
    **dict.fromkeys(RESHAPED, lambda to, node, x, *_shape_or_axis: to.shaped(to.value(x), _shape(node))),
    **dict.fromkeys(
        FILLED, lambda to, node, *_: to.constant(torch.full(_shape(node), FILLED[node.target]), _dtype(node))
    ),
    aten.select.int: _select,
    aten.slice.Tensor: _slice,
    aten.permute.default: _permute,
    aten.transpose.int: _transpose,
    aten.t.default: _transpose,
    aten.cat.default: _concatenate,
    aten.stack.default: _stack,
    aten.expand.default: _expand,
    aten.index.Tensor: _index,
    aten.mm.default: _product,
    aten.bmm.default: _product,
    aten.addmm.default: _linear,
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
    aten.native_batch_norm.default: _batch_norm,
    aten.native_batch_norm_backward.default: _batch_norm_backward,
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.upsample_bilinear2d.default: _upsample,
    aten.where.self: _where,
    aten.gather.default: _gather,
    aten.scatter_add.default: _scatter_add,
    aten._softmax.default: _softmax,
    aten._to_copy.default: lambda to, node, x: to.value(x, _dtype(node)),
    aten.ne.Scalar: lambda to, node, x, other: to.add("Not", to.add("Equal", to.value(x), to.value(other, _dtype(x)))),
    aten.rsub.Scalar: lambda to, node, x, other: to.add(
        "Sub", to.value(other, _dtype(node)), to.value(x, _dtype(node))
    ),
}
