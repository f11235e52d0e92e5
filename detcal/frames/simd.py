"""Sixteen float32 as one value in a kernel: a row of an array (n, 16) is loaded, computed with and stored as a whole.

From an array (n,) the same instructions take one float32: a kernel for sixteen frames is compiled for a frame alone too, from one source.
The compiler finds no SIMD form by itself for short loops over rows that it cannot tell apart; here the type asks for one.
Each instruction has a twin in simd_numpy, which stands in its place where numba is turned off (NUMBA_DISABLE_JIT=1).
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

from detcal.frames import simd_numpy
from detcal.frames.simd_numpy import LANES, wrong_alignment, wrong_width

HALF = LANES // 2
PLAIN_PYTHON: bool = config.DISABLE_JIT  # type: ignore[attr-defined]
VECTOR = ir.VectorType(ir.FloatType(), LANES)


class LanesType(types.Type):
    """The type of such a value."""

    def __init__(self) -> None:
        super().__init__("sixteen float32")


lanes_type = LanesType()


@register_model(LanesType)
class LanesModel(models.PrimitiveModel):
    """A vector in LLVM."""

    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, VECTOR)


def instruction(twin: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Make an instruction for kernels of a function that writes its code; where numba is turned off, its twin is taken."""

    def choose(code: Any) -> Any:
        return twin if PLAIN_PYTHON else intrinsic(code)

    return choose


def address(context: Any, builder: Any, array_type: Any, array: Any, row: Any, column: Any = None, alignment: int = 4) -> tuple[Any, Any]:
    """Where a row of an array (n, 16) begins, or sixteen numbers from a column on of one (n, 16 or more), and the width of its rows.

    The kernel raises if the array has rows of another width, or does not begin at a multiple of so many bytes. Neither changes in a loop,
    so that the compiler takes the comparison out of it. Whether the row and the column are there is not checked.
    """
    proxy = cgutils.create_struct_proxy(array_type)(context, builder, array)
    data, width = proxy.data, cgutils.unpack_tuple(builder, proxy.shape)[1]
    lanes, zero = ir.Constant(width.type, LANES), ir.Constant(width.type, 0)
    raise_if(context, builder, builder.icmp_unsigned("!=" if column is None else "<", width, lanes), wrong_width(column is not None))
    if alignment > 1:
        offset = builder.and_(builder.ptrtoint(data, width.type), ir.Constant(width.type, alignment - 1))
        raise_if(context, builder, builder.icmp_unsigned("!=", offset, zero), wrong_alignment(alignment))
    first = builder.mul(row, lanes) if column is None else builder.add(builder.mul(row, width), column)
    return builder.gep(data, [first]), width


def raise_if(context: Any, builder: Any, wrong: Any, message: str) -> None:
    """Raise a ValueError from the kernel where a condition is true."""
    with builder.if_then(wrong, likely=False):
        context.call_conv.return_user_exc(builder, ValueError, (message,))


def filled(builder: Any, value: Any) -> Any:
    """The same value in all lanes."""
    one = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


def check_rows(array: Any, number: Any = types.float32) -> None:
    """Refuse, when a kernel is compiled, what has no rows of such numbers."""
    if not (isinstance(array, types.Array) and array.ndim == 2 and array.layout == "C" and array.dtype == number):
        raise TypeError(f"expected a contiguous array (n, m) of {number}, got {array}")


def row_type(array: Any) -> Any:
    """What a row is: sixteen numbers of an array (n, 16), or one of an array (n,)."""
    if isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C" and array.dtype == types.float32:
        return types.float32
    check_rows(array)
    return lanes_type


def row_place(context: Any, builder: Any, array_type: Any, array: Any, row: Any) -> Any:
    """Where it is."""
    if array_type.ndim == 1:
        return builder.gep(cgutils.create_struct_proxy(array_type)(context, builder, array).data, [row])
    place, _width = address(context, builder, array_type, array, row)
    return builder.bitcast(place, VECTOR.as_pointer())


@instruction(simd_numpy.load)
def load(_: Any, array: Any, row: Any) -> Any:
    """A row of an array (n, 16), or a number of an array (n,)."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(row_place(context, builder, signature.args[0], *arguments), align=4)

    return row_type(array)(array, types.intp), code


@instruction(simd_numpy.store)
def store(_: Any, array: Any, row: Any, value: Any) -> Any:
    """Put a value in a row of an array (n, 16), or a number in an array (n,)."""
    if value != row_type(array):
        raise TypeError(f"expected a contiguous array of rows of {value}, got {array}")

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, row, value = arguments
        builder.store(value, row_place(context, builder, signature.args[0], array, row), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), code


@instruction(simd_numpy.stream)
def stream(_: Any, array: Any, row: Any, value: Any) -> Any:
    """As `store`, past the cache, in rows that each fill a line of it: for what is far more than the cache holds."""
    check_rows(array)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, _width = address(context, builder, signature.args[0], arguments[0], arguments[1], alignment=4 * LANES)
        stored = builder.store(arguments[2], builder.bitcast(place, VECTOR.as_pointer()), align=4 * LANES)
        stored.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes_type), code


@instruction(simd_numpy.load_from)
def load_from(_: Any, array: Any, row: Any, column: Any) -> Any:
    """Sixteen numbers of any type that lie side by side in a row of an array."""
    number: Any = array.dtype
    check_rows(array, number)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, row, column = arguments
        place, _width = address(
            context, builder, signature.args[0], array, row, column, alignment=1
        )  # frames lie where their file has them
        vector = ir.VectorType(context.get_data_type(number), LANES)
        found = builder.load(builder.bitcast(place, vector.as_pointer()), align=number.bitwidth // 8 if signature.args[0].aligned else 1)
        return rounded(builder, found, number)

    return lanes_type(array, types.intp, types.intp), code


def rounded(builder: Any, found: Any, number: Any) -> Any:
    """Sixteen numbers of any type as float32."""
    if number in types.signed_domain:
        return builder.sitofp(found, VECTOR)
    if number in types.unsigned_domain:
        return builder.uitofp(found, VECTOR)
    return found if number == types.float32 else builder.fptrunc(found, VECTOR)


def scattered(context: Any, builder: Any, signature: Any, arguments: Any) -> list[Any]:
    """Where the numbers of an array (m,) are, of which a row of an array (n, 16) of uint32 says which."""
    array, numbers, row = arguments
    first, _width = address(context, builder, signature.args[1], numbers, row)
    data = cgutils.create_struct_proxy(signature.args[0])(context, builder, array).data
    which = builder.load(builder.bitcast(first, ir.VectorType(ir.IntType(32), LANES).as_pointer()), align=4)
    wide = builder.zext(which, ir.VectorType(ir.IntType(64), LANES))
    return [builder.gep(data, [builder.extract_element(wide, ir.Constant(ir.IntType(32), lane))]) for lane in range(LANES)]


@instruction(simd_numpy.gather)
def gather(_: Any, array: Any, numbers: Any, row: Any) -> Any:
    """Sixteen numbers of any type from an array (m,): those that a row of an array (n, 16) of uint32 says. It is not checked."""
    check_rows(numbers, types.uint32)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = ir.Constant(ir.VectorType(context.get_data_type(array.dtype), LANES), ir.Undefined)
        alignment = array.dtype.bitwidth // 8 if array.aligned else 1
        for lane, place in enumerate(scattered(context, builder, signature, arguments)):
            found = builder.insert_element(found, builder.load(place, align=alignment), ir.Constant(ir.IntType(32), lane))
        return rounded(builder, found, array.dtype)

    return lanes_type(array, numbers, types.intp), code


@instruction(simd_numpy.prefetch_scattered)
def prefetch_scattered(_: Any, array: Any, numbers: Any, row: Any) -> Any:
    """Ask for what `gather` is to find to be in the cache soon."""
    check_rows(numbers, types.uint32)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        ask_for(builder, scattered(context, builder, signature, arguments))
        return context.get_dummy_value()

    return types.void(array, numbers, types.intp), code


def ask_for(builder: Any, places: list[Any]) -> None:
    """Ask for the lines of the cache that addresses lie in."""
    byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    ask = builder.module.declare_intrinsic("llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, number, number, number]))
    options = [ir.Constant(number, value) for value in (0, 3, 1)]  # to read, to keep, data
    for place in places:
        builder.call(ask, [builder.bitcast(place, byte), *options])


@instruction(simd_numpy.store_to)
def store_to(_: Any, array: Any, row: Any, column: Any, value: Any) -> Any:
    """Put sixteen float32 side by side in a row of an array (n, m), from a column on."""
    check_rows(array)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, _width = address(context, builder, signature.args[0], *arguments[:3])
        builder.store(arguments[3], builder.bitcast(place, VECTOR.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, lanes_type), code


@instruction(simd_numpy.prefetch)
def prefetch(_: Any, array: Any, column: Any) -> Any:
    """Ask for sixteen numbers in each row of an array (n, m), from a column on, to be in the cache soon. They need not be there."""
    check_rows(array, array.dtype)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        proxy = cgutils.create_struct_proxy(signature.args[0])(context, builder, arguments[0])
        rows, width = cgutils.unpack_tuple(builder, proxy.shape)
        with cgutils.for_range(builder, rows) as loop:
            first = builder.add(builder.mul(loop.index, width), arguments[1])
            last = builder.add(first, ir.Constant(first.type, LANES - 1))  # may lie in another line of the cache
            ask_for(builder, [builder.gep(proxy.data, [place]) for place in (first, last)])
        return context.get_dummy_value()

    return types.void(array, types.intp), code


@instruction(simd_numpy.measured)
def measured(_: Any, value: Any, least: Any, most: Any, flag: Any, more: Any) -> Any:
    """`value`, but NaN where it is not from `least` to `most`, or is one of flag, flag + 1, … flag + more (flag is NaN: there is none)."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        value, (least, most, flag, more) = arguments[0], (filled(builder, each) for each in arguments[1:])
        above = builder.fsub(value, flag)
        rint = cgutils.get_or_insert_function(builder.module, ir.FunctionType(VECTOR, [VECTOR]), f"llvm.rint.v{LANES}f32")
        flagged = builder.fcmp_ordered(">=", above, ir.Constant(VECTOR, [0.0] * LANES))
        flagged = builder.and_(flagged, builder.fcmp_ordered("<=", above, more))
        flagged = builder.and_(flagged, builder.fcmp_ordered("==", above, builder.call(rint, [above])))
        good = builder.and_(builder.fcmp_ordered(">=", value, least), builder.fcmp_ordered("<=", value, most))
        good = builder.and_(good, builder.not_(flagged))
        return builder.select(good, value, ir.Constant(VECTOR, [float("nan")] * LANES))

    return lanes_type(lanes_type, *[types.float32] * 4), code


@instruction(simd_numpy.splat)
def splat(_: Any, number: Any) -> Any:
    """The same number in all lanes."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return filled(builder, arguments[0])

    return lanes_type(types.float32), code


@instruction(simd_numpy.splat_for)
def splat_for(_: Any, array: Any, number: Any) -> Any:
    """The same number in all lanes of a row of an array (n, 16); of an array (n,), the number."""

    def code(_context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return arguments[1] if signature.return_type == types.float32 else filled(builder, arguments[1])

    return row_type(array)(array, types.float32), code


@instruction(simd_numpy.row_of)
def row_of(_: Any, array: Any, row: Any) -> Any:
    """A row of an array (n, 16), or a number of an array (n,) in all lanes."""
    if array.ndim == 2:
        check_rows(array)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if signature.args[0].ndim == 1:
            proxy = cgutils.create_struct_proxy(signature.args[0])(context, builder, arguments[0])
            return filled(builder, builder.load(builder.gep(proxy.data, [arguments[1]])))
        place, _width = address(context, builder, signature.args[0], arguments[0], arguments[1])
        return builder.load(builder.bitcast(place, VECTOR.as_pointer()), align=4)

    return lanes_type(array, types.intp), code


def alike(value: Any, *others: Any) -> Any:
    """The type of values that are all sixteen numbers, or all one."""
    if value not in (lanes_type, types.float32) or any(other != value for other in others):
        raise TypeError(f"expected values that are all {lanes_type}, or all float32, got {', '.join(map(str, (value, *others)))}")
    return value


@instruction(simd_numpy.where_number)
def where_number(_: Any, value: Any, other: Any) -> Any:
    """`value`, but `other` in lanes where it is NaN."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.select(builder.fcmp_ordered("ord", arguments[0], arguments[0]), *arguments)

    return alike(value, other)(value, other), code


@instruction(simd_numpy.plus_product)
def plus_product(_: Any, value: Any, one: Any, other: Any) -> Any:
    """value + one · other, rounded once."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        value, one, other = arguments
        name = f"llvm.fma.v{LANES}f32" if value.type == VECTOR else "llvm.fma.f32"
        fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(value.type, [value.type] * 3), name)
        return builder.call(fma, [one, other, value])

    return alike(value, one, other)(value, one, other), code


@instruction(simd_numpy.where_positive)
def where_positive(_: Any, condition: Any, value: Any, other: Any) -> Any:
    """`value` in lanes where `condition` is above 0, else `other`."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        condition, value, other = arguments
        zero = ir.Constant(VECTOR, [0.0] * LANES) if condition.type == VECTOR else ir.Constant(condition.type, 0.0)
        return builder.select(builder.fcmp_ordered(">", condition, zero), value, other)

    return alike(condition, value, other)(condition, value, other), code


@instruction(simd_numpy.transpose)
def transpose(_: Any, source: Any, row: Any, column: Any, target: Any, target_row: Any, target_column: Any) -> Any:
    """Put the 16 × 16 numbers of an array from (row, column) on into another, rows as columns: by quarters, which registers can hold."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, row, column, target, target_row, target_column = arguments
        read = places_of(context, builder, signature.args[0], source, row, column)
        written = places_of(context, builder, signature.args[3], target, target_row, target_column)
        for down in (0, 1):
            for right in (0, 1):
                rows = [builder.load(place[right], align=4) for place in read[HALF * down : HALF * (down + 1)]]
                for value, place in zip(transposed(builder, rows), written[HALF * right : HALF * (right + 1)], strict=True):
                    builder.store(value, place[down], align=4)
        return context.get_dummy_value()

    check_rows(source)
    check_rows(target)
    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), code


def places_of(context: Any, builder: Any, array_type: Any, array: Any, row: Any, column: Any) -> list[list[Any]]:
    """Where the halves of sixteen rows of sixteen numbers begin in an array."""
    first, width = address(context, builder, array_type, array, row, column)
    halves = ir.VectorType(ir.FloatType(), HALF).as_pointer()
    places = []
    for i in range(LANES):
        offset = builder.mul(width, ir.Constant(width.type, i))
        offsets = offset, builder.add(offset, ir.Constant(offset.type, HALF))
        places.append([builder.bitcast(builder.gep(first, [each]), halves) for each in offsets])
    return places


def transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """The columns of a square of numbers."""
    size, rows = len(rows), list(rows)
    for step in (1, 2, 4):  # swap the off-diagonal quarters of blocks of twice the step
        for i in range(size):
            if not i & step:
                upper, lower = rows[i], rows[i | step]
                rows[i] = shuffled(builder, upper, lower, [size + (e ^ step) if e & step else e for e in range(size)])
                rows[i | step] = shuffled(builder, upper, lower, [size + e if e & step else e | step for e in range(size)])
    return rows


def shuffled(builder: Any, one: Any, other: Any, order: list[int]) -> Any:
    """The numbers of two vectors in some order."""
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order))


@instruction(simd_numpy.where_between)
def where_between(_: Any, value: Any, low: Any, high: Any, then: Any, other: Any) -> Any:
    """`then` in lanes where low ≤ value ≤ high, else `other`; NaN is between nothing."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        value, low, high, then, other = arguments
        between = builder.and_(builder.fcmp_ordered(">=", value, low), builder.fcmp_ordered("<=", value, high))
        return builder.select(between, then, other)

    return alike(value, low, high, then, other)(value, low, high, then, other), code


@instruction(simd_numpy.where_up_to)
def where_up_to(_: Any, value: Any, high: Any, then: Any, other: Any) -> Any:
    """`then` in lanes where value ≤ high, else `other`, also where value is NaN."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        value, high, then, other = arguments
        return builder.select(builder.fcmp_ordered("<=", value, high), then, other)

    return lanes_type(*[lanes_type] * 4), code


@instruction(simd_numpy.lanes_between)
def lanes_between(_: Any, value: Any, low: Any, high: Any) -> Any:
    """The lanes where low ≤ value ≤ high, each as a bit of a whole number."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        value, low, high = arguments
        between = builder.and_(builder.fcmp_ordered(">=", value, low), builder.fcmp_ordered("<=", value, high))
        bits = builder.bitcast(between, ir.IntType(LANES)) if value.type == VECTOR else between
        return builder.zext(bits, ir.IntType(64))

    alike(value, low, high)
    return types.uint64(value, low, high), code


@instruction(simd_numpy.lowest_bit)
def lowest_bit(_: Any, bits: Any) -> Any:
    """Which bit of a whole number other than 0 is the first that is set."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), code


def extreme(order: str, twin: Callable[..., Any]) -> Any:
    """Of two values, in each lane the one that comes first; the second one if either is NaN."""

    @instruction(twin)
    def first(_: Any, one: Any, other: Any) -> Any:
        def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.select(builder.fcmp_ordered(order, *arguments), *arguments)

        return lanes_type(lanes_type, lanes_type), code

    return first


smaller, larger = extreme("<", simd_numpy.smaller), extreme(">", simd_numpy.larger)


def arithmetic(function: Any, name: str) -> None:
    """Let an operator of Python work on two values of sixteen, or on a float32 and sixteen."""

    @type_callable(function)
    def typed(_: Any) -> Any:
        def result(one, other):  # type: ignore[no-untyped-def]
            return lanes_type if other is lanes_type and one in (lanes_type, types.float32) else None

        return result

    @lower_builtin(function, lanes_type, lanes_type)
    def two(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return getattr(builder, name)(*arguments)

    @lower_builtin(function, types.float32, lanes_type)
    def number_and_lanes(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return getattr(builder, name)(filled(builder, arguments[0]), arguments[1])


for function, name in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv")):
    arithmetic(function, name)
