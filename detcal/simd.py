"""Sixteen float32 as one value in a kernel: a row of an array (n, 16) is loaded, reckoned with and stored as a whole.

The compiler finds no SIMD form by itself for short loops over rows that it cannot tell apart; here the type asks for one.
"""

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

LANES = 16
VECTOR = ir.VectorType(ir.FloatType(), LANES)


class LanesType(types.Type):
    """The type of such a value."""

    def __init__(self) -> None:
        super().__init__("sixteen float32")


lanes_type = LanesType()


@register_model(LanesType)
class LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    """A vector in LLVM."""

    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, VECTOR)


def address(context: Any, builder: Any, array_type: Any, array: Any, row: Any) -> Any:
    """Where a row of an array (n, 16) begins."""
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    first = builder.mul(row, ir.Constant(row.type, LANES))
    return builder.bitcast(builder.gep(data, [first]), VECTOR.as_pointer())


def filled(builder: Any, value: Any) -> Any:
    """The same value in all lanes."""
    one = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


def check_rows(array: Any) -> None:
    """Refuse, when a kernel is compiled, what has no rows of lanes."""
    if not (isinstance(array, types.Array) and array.ndim == 2 and array.layout == "C" and array.dtype == types.float32):
        raise TypeError(f"expected a contiguous float32 array (n, {LANES}), got {array}")


@intrinsic
def load(_: Any, array: Any, row: Any) -> Any:
    """A row of an array (n, 16)."""
    check_rows(array)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = address(context, builder, signature.args[0], arguments[0], arguments[1])
        return builder.load(place, align=4)

    return lanes_type(array, types.intp), code


@intrinsic
def store(_: Any, array: Any, row: Any, value: Any) -> Any:
    """Put a value in a row of an array (n, 16)."""
    check_rows(array)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = address(context, builder, signature.args[0], arguments[0], arguments[1])
        builder.store(arguments[2], place, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes_type), code


@intrinsic
def splat(_: Any, number: Any) -> Any:
    """The same number in all lanes."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return filled(builder, arguments[0])

    return lanes_type(types.float32), code


@intrinsic
def where_number(_: Any, value: Any, other: Any) -> Any:
    """`value`, but `other` in lanes where it is NaN."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.select(builder.fcmp_ordered("ord", arguments[0], arguments[0]), *arguments)

    return lanes_type(lanes_type, lanes_type), code


@intrinsic
def where_positive(_: Any, condition: Any, value: Any, other: Any) -> Any:
    """`value` in lanes where `condition` is above 0, else `other`."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", arguments[0], ir.Constant(VECTOR, [0.0] * LANES)), *arguments[1:])

    return lanes_type(lanes_type, lanes_type, lanes_type), code


def arithmetic(function: Any, instruction: str) -> None:
    """Let an operator of Python work on two values of sixteen, or on a float32 and sixteen."""

    @type_callable(function)
    def typed(_: Any) -> Any:
        def result(one, other):  # type: ignore[no-untyped-def]
            return lanes_type if other is lanes_type and one in (lanes_type, types.float32) else None

        return result

    @lower_builtin(function, lanes_type, lanes_type)
    def two(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return getattr(builder, instruction)(*arguments)

    @lower_builtin(function, types.float32, lanes_type)
    def number_and_lanes(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return getattr(builder, instruction)(filled(builder, arguments[0]), arguments[1])


for function, instruction in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv")):
    arithmetic(function, instruction)
