"""A compiled vector type: `Lanes` holds several float64 values, so that a formula written once runs on all at a time.

In compiled code the operators + - * / and the functions below work lane by lane; a number beside a vector is repeated.
`repeat4`, `repeat8` and `repeat16` make a vector of that width, and `load` takes its width from an example. LLVM splits
widths that the processor lacks over several registers. This is what a loop vectoriser would do where it could be relied
on: gathers through a neighbour list, fits with an early exit, and register-blocked products. Small functions of vectors
are inlined by decree: a call would pass every vector through memory.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.core.extending import intrinsic, models, overload, register_model

Vector = Any  # a Lanes value; it exists in compiled code only


def _typed(implementation: Callable[..., Any]) -> Any:
    """An intrinsic of numba, whose own annotations do not know that the typing context is not passed by the caller."""
    return intrinsic(implementation)


class Lanes(types.Type):
    """The compiled type of `width` float64 values."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(name=f"Lanes({width})")

    @property
    def llvm(self) -> ir.VectorType:
        """<width x double>."""
        return ir.VectorType(ir.DoubleType(), self.width)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, lanes.llvm)


def _splat(builder: ir.IRBuilder, number: ir.Value, vector: ir.VectorType) -> ir.Value:
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), mask)


def _pointer(
    context: Any, builder: ir.IRBuilder, sig: Any, array: ir.Value, offset: ir.Value, width: Lanes
) -> ir.Value:
    data = context.make_array(sig.args[0])(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), width.llvm.as_pointer())


def _repeat(width: int) -> Any:
    @_typed
    def repeat(typing_context: Any, number: Any) -> Any:
        """The number in every lane."""

        def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
            return _splat(builder, args[0], Lanes(width).llvm)

        return Lanes(width)(types.float64), generate

    return repeat


repeat4, repeat8, repeat16 = _repeat(4), _repeat(8), _repeat(16)


@_typed
def _repeat_like(typing_context: Any, number: Any, like: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return _splat(builder, args[0], like.llvm)

    return like(types.float64, like), generate


@_typed
def load(typing_context: Any, array: Any, offset: Any, like: Any) -> Any:
    """Consecutive elements of a C-contiguous array, from the element `offset` of its flat view; as wide as `like`."""

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return builder.load(_pointer(context, builder, sig, args[0], args[1], like), align=8)

    return like(array, types.intp, like), generate


@_typed
def spread(typing_context: Any, array: Any, offset: Any, like: Any) -> Any:
    """One element of an array in every lane, see `load`."""

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        data = context.make_array(array)(context, builder, args[0]).data
        return _splat(builder, builder.load(builder.gep(data, [args[1]])), like.llvm)

    return like(array, types.intp, like), generate


@_typed
def store(typing_context: Any, array: Any, offset: Any, vector: Any) -> Any:
    """Write a vector to consecutive elements, see `load`."""

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        builder.store(args[2], _pointer(context, builder, sig, args[0], args[1], vector), align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@_typed
def gather(typing_context: Any, array: Any, offset: Any, step: Any, like: Any) -> Any:
    """Elements offset, offset + step, ... of an array, see `load`."""

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        vector = ir.Constant(like.llvm, ir.Undefined)
        for k, pointer in enumerate(_strided(context, builder, array, args, like.width)):
            vector = builder.insert_element(vector, builder.load(pointer), ir.Constant(ir.IntType(32), k))
        return vector

    return like(array, types.intp, types.intp, like), generate


@_typed
def scatter(typing_context: Any, array: Any, offset: Any, step: Any, vector: Any) -> Any:
    """Write a vector to the elements offset, offset + step, ... of an array, see `load`."""

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        for k, pointer in enumerate(_strided(context, builder, array, args, vector.width)):
            builder.store(builder.extract_element(args[3], ir.Constant(ir.IntType(32), k)), pointer)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, vector), generate


def _strided(context: Any, builder: ir.IRBuilder, array: Any, args: Any, count: int) -> list[ir.Value]:
    data = context.make_array(array)(context, builder, args[0]).data
    places = [builder.add(args[1], builder.mul(args[2], ir.Constant(args[2].type, k))) for k in range(count)]
    return [builder.gep(data, [place]) for place in places]


@_typed
def lane(typing_context: Any, vector: Any, index: Any) -> Any:
    """One element of a vector."""

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return builder.extract_element(args[0], args[1])

    return types.float64(vector, types.intp), generate


def _operation(name: str) -> Any:
    @_typed
    def operation(typing_context: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
            return getattr(builder, name)(*args, flags=("contract",))

        return a(a, b), generate

    return operation


def _define(symbol: Callable[..., Any], operation: Any) -> None:
    @overload(symbol, strict=False)
    def on_lanes(a: Any, b: Any) -> Any:
        if isinstance(a, Lanes) and isinstance(b, Lanes):
            return lambda a, b: operation(a, b)
        if isinstance(a, Lanes) and isinstance(b, types.Number):
            return lambda a, b: operation(a, _repeat_like(b, a))
        if isinstance(a, types.Number) and isinstance(b, Lanes):
            return lambda a, b: operation(_repeat_like(a, b), b)
        return None


for _symbol, _name in (
    (operator.add, "fadd"),
    (operator.iadd, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define(_symbol, _operation(_name))


@overload(operator.neg, strict=False)
def _negative(a: Any) -> Any:
    return (lambda a: 0.0 - a) if isinstance(a, Lanes) else None


def _llvm_function(name: str) -> Any:
    @_typed
    def function(typing_context: Any, vector: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
            declared = ir.FunctionType(vector.llvm, [vector.llvm])
            symbol = f"llvm.{name}.v{vector.width}f64"
            return builder.call(cgutils.get_or_insert_function(builder.module, declared, symbol), args)

        return vector(vector), generate

    return function


square_root, magnitude = _llvm_function("sqrt"), _llvm_function("fabs")


@_typed
def where_less(typing_context: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """`yes` in the lanes where a < b, and `no` in the others, those with a NaN included."""

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return builder.select(builder.fcmp_ordered("<", args[0], args[1]), args[2], args[3])

    return yes(a, b, yes, no), generate


@_typed
def all_less(typing_context: Any, a: Any, b: Any) -> Any:
    """Whether a < b in every lane."""

    def generate(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        bits = ir.IntType(a.width)
        return builder.icmp_unsigned("==", builder.bitcast(builder.fcmp_ordered("<", *args), bits), bits(-1))

    return types.boolean(a, b), generate
