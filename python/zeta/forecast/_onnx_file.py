"""Judges an ONNX file before any runtime parses it.

An ONNX file is a protobuf message. The walk below accepts a narrow subset: the fields that a small feed-forward net
needs, each singular field once, each length checked against what is left, no unknown field, no group, no varint longer
than it must be. Where two parsers could understand the same bytes differently, the file is refused. Messages nest as
deep as model, graph, node, attribute, tensor and no deeper, because subgraphs are refused; so the walk needs no bound
on recursion. Field numbers are those of ONNX's public ``onnx.proto``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["ALLOWED_OPERATORS", "IR_VERSIONS", "MODEL_BYTES_MAX", "OPSETS", "ModelFile", "RefusedFile", "inspect"]

MODEL_BYTES_MAX: Final = 4 * 1024 * 1024
"""A net of a million weights; the ones that fit a tick have some ten thousand."""

OPSETS: Final = range(13, 22)
"""Versions of the default operator set that ONNX Runtime 1.20 and all later ones know."""

IR_VERSIONS: Final = range(7, 11)

# fmt: off
ALLOWED_OPERATORS: Final = frozenset([
    "Abs", "Add", "Clip", "Concat", "Constant", "Conv", "CumSum", "Div", "Exp", "Flatten", "Gemm", "Identity",
    "LayerNormalization", "LeakyRelu", "Log", "MatMul", "Max", "Min", "Mul", "Neg", "ReduceMean", "ReduceSum",
    "Relu", "Reshape", "Sigmoid", "Slice", "Softmax", "Softplus", "Split", "Sqrt", "Squeeze", "Sub", "Tanh",
    "Transpose", "Unsqueeze",
])
# fmt: on
"""Plain arithmetic on tensors. None reads a file, runs a subgraph, or makes sizes out of values."""

_FIELDS_MAX = 20_000
_INT_BYTES_MAX = 65_536  # of one packed field: dimensions, axes, shapes
_NODES_MAX = 256
_TENSORS_MAX = 512
_RANK_MAX = 8
_NAME_BYTES_MAX = 1_024
_FLOAT, _INT64 = 1, 7  # TensorProto.DataType


class RefusedFile(Exception):
    """Why a file is refused: what was given, what is expected.

    Parameters
    ----------
    given, expected : str
        Halves of a sentence.
    is_schema : bool
        The file is a sound net, made for other inputs or outputs.
    """

    def __init__(self, given: str, expected: str, *, is_schema: bool = False) -> None:
        super().__init__(given, expected)
        self.given = given
        self.expected = expected
        self.is_schema = is_schema


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What a file that passed holds."""

    ir_version: int
    opset: int
    operators: tuple[str, ...]
    weights: int


# --- protobuf's wire format ------------------------------------------------------------------------------------------


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """The unsigned value at `at`, and the position behind it."""
    value = 0
    for length in range(10):
        if at >= len(data):
            raise RefusedFile("a file that ends inside a number", "a complete file")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << (7 * length)
        if byte < 0x80:
            if (byte == 0 and length > 0) or value >= 1 << 64:
                raise RefusedFile("a number in an unusual encoding", "the shortest encoding")
            return value, at
    raise RefusedFile("a number of more than 64 bits", "protobuf numbers")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


class _Budget:
    """What the fields of one file may still number, so that two bytes each cannot fill the memory with objects."""

    def __init__(self) -> None:
        self.fields = _FIELDS_MAX

    def spend(self) -> None:
        self.fields -= 1
        if self.fields < 0:
            raise RefusedFile(f"more than {_FIELDS_MAX} fields", "a small net")


def _fields(data: memoryview, where: str) -> Iterator[tuple[int, int, int, memoryview]]:
    """Each field of a message: number, wire type, value of a varint, bytes of anything else."""
    at = 0
    nothing = data[:0]
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if number == 0 or number >= 1 << 29:
            raise RefusedFile(f"field number {number} in {where}", "a field number of protobuf")
        if wire == 0:
            value, at = _varint(data, at)
            yield number, wire, value, nothing
            continue
        if wire == 2:
            length, at = _varint(data, at)
        elif wire == 5:
            length = 4
        elif wire == 1:
            length = 8
        else:
            raise RefusedFile(f"wire type {wire} in {where}", "no groups and no reserved types")
        if length > len(data) - at:
            raise RefusedFile(f"{where} with {length} bytes announced and {len(data) - at} there", "a complete file")
        yield number, wire, length, data[at : at + length]
        at += length


# --- what each message may hold ------------------------------------------------------------------------------------
# A kind is int, text, bytes, float, ints or floats (repeated numbers, packed or not), skip (text that nothing here
# uses), or the name of a message. A star marks a repeated field; any other may come once.

_NO_FUNCTIONS = "no functions of its own"
_NO_CONTROL_FLOW = "no control flow"
_IN_THE_FILE = "all weights inside the file"
_DENSE = "dense tensors only"

_MESSAGES: Final[Mapping[str, Mapping[int, tuple[str, str]]]] = {
    "model": {
        1: ("ir_version", "int"),
        2: ("producer_name", "skip"),
        3: ("producer_version", "skip"),
        4: ("domain", "skip"),
        5: ("model_version", "int"),
        6: ("doc_string", "skip"),
        7: ("graph", "graph"),
        8: ("opset_import", "*opset"),
        14: ("metadata_props", "*pair"),
    },
    "opset": {1: ("domain", "text"), 2: ("version", "int")},
    "pair": {1: ("key", "skip"), 2: ("value", "skip")},
    "graph": {
        1: ("node", "*node"),
        2: ("name", "skip"),
        5: ("initializer", "*tensor"),
        10: ("doc_string", "skip"),
        11: ("input", "*value"),
        12: ("output", "*value"),
        13: ("value_info", "*value"),
        16: ("metadata_props", "*pair"),
    },
    "node": {
        1: ("input", "*text"),
        2: ("output", "*text"),
        3: ("name", "skip"),
        4: ("op_type", "text"),
        5: ("attribute", "*attribute"),
        6: ("doc_string", "skip"),
        7: ("domain", "text"),
        8: ("overload", "text"),
        9: ("metadata_props", "*pair"),
    },
    "attribute": {
        1: ("name", "text"),
        2: ("f", "float"),
        3: ("i", "int"),
        4: ("s", "text"),
        5: ("t", "tensor"),
        7: ("floats", "floats"),
        8: ("ints", "ints"),
        13: ("doc_string", "skip"),
        20: ("type", "int"),
    },
    "tensor": {
        1: ("dims", "ints"),
        2: ("data_type", "int"),
        4: ("float_data", "floats"),
        7: ("int64_data", "ints"),
        8: ("name", "text"),
        9: ("raw_data", "bytes"),
        12: ("doc_string", "skip"),
        14: ("data_location", "int"),
        16: ("metadata_props", "*pair"),
    },
    "value": {1: ("name", "text"), 2: ("type", "type"), 3: ("doc_string", "skip"), 4: ("metadata_props", "*pair")},
    "type": {1: ("tensor_type", "tensor_type"), 6: ("denotation", "skip")},
    "tensor_type": {1: ("elem_type", "int"), 2: ("shape", "shape")},
    "shape": {1: ("dim", "*dim")},
    "dim": {1: ("dim_value", "int"), 2: ("dim_param", "skip"), 3: ("denotation", "skip")},
}

_FORBIDDEN: Final[Mapping[tuple[str, int], tuple[str, str]]] = {
    ("model", 20): ("training information", "a net for inference only"),
    ("model", 25): ("functions", _NO_FUNCTIONS),
    ("model", 26): ("device configurations", "a net for one CPU"),
    ("graph", 14): ("quantisation annotations", "float32 weights"),
    ("graph", 15): ("sparse initialisers", _DENSE),
    ("node", 10): ("device configurations", "a net for one CPU"),
    ("attribute", 6): ("a subgraph", _NO_CONTROL_FLOW),
    ("attribute", 9): ("a list of strings", "attributes of numbers and single strings"),
    ("attribute", 10): ("a list of tensors", "at most one tensor in an attribute"),
    ("attribute", 11): ("subgraphs", _NO_CONTROL_FLOW),
    ("attribute", 14): ("a type as attribute", "attributes of numbers and single strings"),
    ("attribute", 15): ("types as attribute", "attributes of numbers and single strings"),
    ("attribute", 21): ("a reference to a function's attribute", _NO_FUNCTIONS),
    ("attribute", 22): ("a sparse tensor", _DENSE),
    ("attribute", 23): ("sparse tensors", _DENSE),
    ("tensor", 3): ("a segmented tensor", _IN_THE_FILE),
    ("tensor", 5): ("an int32 tensor", "float32 and int64 tensors"),
    ("tensor", 6): ("a tensor of strings", "float32 and int64 tensors"),
    ("tensor", 10): ("a tensor of doubles", "float32 and int64 tensors"),
    ("tensor", 11): ("an unsigned tensor", "float32 and int64 tensors"),
    ("tensor", 13): ("external data", _IN_THE_FILE),
    ("type", 4): ("a sequence", "tensors only"),
    ("type", 5): ("a map", "tensors only"),
    ("type", 7): ("an opaque type", "tensors only"),
    ("type", 8): ("a sparse tensor", _DENSE),
    ("type", 9): ("an optional value", "tensors only"),
}

_Message = dict[str, Any]


def _text(data: memoryview, name: str) -> str:
    if len(data) > _NAME_BYTES_MAX:
        raise RefusedFile(f"{name} of {len(data)} bytes", f"at most {_NAME_BYTES_MAX}")
    try:
        text = bytes(data).decode()
    except UnicodeDecodeError:
        raise RefusedFile(f"{name} that is no text", "UTF-8") from None
    if "\0" in text:
        raise RefusedFile(f"{name} with a zero byte inside", "names as C strings")
    return text


def _packed_ints(data: memoryview, name: str) -> list[int]:
    if len(data) > _INT_BYTES_MAX:
        raise RefusedFile(f"{name} of {len(data)} bytes", f"at most {_INT_BYTES_MAX}")
    values, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        values.append(_signed(value))
    return values


def _packed_floats(data: memoryview, name: str) -> NDArray[np.float32]:
    if len(data) % 4:
        raise RefusedFile(f"{name} of {len(data)} bytes", "whole float32 numbers")
    return np.frombuffer(data, "<f4")


def _value(kind: str, wire: int, number: int, data: memoryview, name: str, budget: _Budget) -> Any:
    """One occurrence of a field; several numbers for the repeated ones."""
    if kind in ("ints", "floats"):
        if wire == 2:
            return _packed_ints(data, name) if kind == "ints" else _packed_floats(data, name)
        if kind == "ints" and wire == 0:
            return [_signed(number)]
        if kind == "floats" and wire == 5:
            return _packed_floats(data, name)
    elif wire == {"int": 0, "float": 5}.get(kind, 2):
        if kind == "int":
            return _signed(number)
        if kind == "float":
            return float(_packed_floats(data, name)[0])
        if kind == "bytes":
            return data
        if kind in ("text", "skip"):
            return _text(data, name) if kind == "text" else None
        return _message(kind, data, budget)
    raise RefusedFile(f"{name} with wire type {wire}", "the type that ONNX gives it")


def _message(message: str, data: memoryview, budget: _Budget) -> _Message:
    """Reads a message into a dict; refuses what its table does not allow."""
    table = _MESSAGES[message]
    read: _Message = {name: [] for name, kind in table.values() if kind[0] == "*" or kind in ("ints", "floats")}
    for field, wire, number, content in _fields(data, f"a {message}"):
        budget.spend()
        if (message, field) in _FORBIDDEN:
            raise RefusedFile(*_FORBIDDEN[message, field])
        if field not in table:
            raise RefusedFile(f"field {field} in a {message}", "the fields of a plain net")
        name, kind = table[field]
        value = _value(kind.lstrip("*"), wire, number, content, f"{name} of a {message}", budget)
        if kind[0] == "*":
            read[name].append(value)
        elif kind in ("ints", "floats"):
            read[name] = value if len(read[name]) == 0 else [*read[name], *value]
        elif name in read:
            raise RefusedFile(f"{name} twice in a {message}", "each field once")
        else:
            read[name] = value
    return read


# --- what the net may be ---------------------------------------------------------------------------------------------


def _check_tensor(tensor: _Message, what: str) -> int:
    """Its dims and its data agree, and are here; how many numbers it holds."""
    if tensor.get("data_location", 0) != 0:
        raise RefusedFile(f"external data in {what}", _IN_THE_FILE)
    kind = tensor.get("data_type", 0)
    if kind not in (_FLOAT, _INT64):
        raise RefusedFile(f"data type {kind} in {what}", f"float32 ({_FLOAT}) or int64 ({_INT64})")
    dims = tensor["dims"]
    if len(dims) > _RANK_MAX or any(not 0 < dim <= MODEL_BYTES_MAX for dim in dims):
        raise RefusedFile(f"dimensions {dims[:_RANK_MAX]} of {what}", f"at most {_RANK_MAX}, each positive")
    count = math.prod(dims)
    if count > MODEL_BYTES_MAX:
        raise RefusedFile(f"{count} numbers in {what}", "as many as the file can hold")
    listed, other = ("float_data", "int64_data") if kind == _FLOAT else ("int64_data", "float_data")
    if tensor[other] or ("raw_data" in tensor and tensor[listed]):
        raise RefusedFile(f"data of two kinds in {what}", "the data once")
    itemsize = 4 if kind == _FLOAT else 8
    if "raw_data" in tensor:
        if len(tensor["raw_data"]) != count * itemsize:
            raise RefusedFile(f"{len(tensor['raw_data'])} bytes in {what}", f"{count * itemsize} for shape {dims}")
        numbers = np.frombuffer(tensor["raw_data"], "<f4" if kind == _FLOAT else "<i8")
    else:
        if len(tensor[listed]) != count:
            raise RefusedFile(f"{len(tensor[listed])} numbers in {what}", f"{count} for shape {dims}")
        numbers = np.asarray(tensor[listed])
    if not np.isfinite(numbers).all():
        raise RefusedFile(f"a number in {what} that is not finite", "finite weights")
    return count


_FIELD_OF_TYPE: Final = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints"}  # AttributeProto.AttributeType


def _is_given(attribute: _Message, name: str) -> bool:
    value = attribute.get(name, [])
    return not isinstance(value, list) or len(value) > 0


def _check_attribute(attribute: _Message, operator: str) -> int:
    """Its value has the type that it names; how many numbers its tensor holds."""
    what = f"attribute {attribute.get('name', '')!r} of {operator}"
    kind = attribute.get("type", 0)
    if kind not in _FIELD_OF_TYPE:
        raise RefusedFile(f"{what} of type {kind}", "a number, numbers, a string or a tensor")
    field = _FIELD_OF_TYPE[kind]
    if given := [name for name in _FIELD_OF_TYPE.values() if name != field and _is_given(attribute, name)]:
        raise RefusedFile(f"{what} with {given[0]} beside {field}", "one value")
    if kind not in (6, 7) and field not in attribute:
        raise RefusedFile(f"{what} without its value", "one value")
    return _check_tensor(attribute["t"], what) if kind == 4 else 0


def _check_node(node: _Message, known: set[str]) -> int:
    """One operator of the allow-list, reading what is known and making new names; how many numbers it holds."""
    operator = node.get("op_type", "")
    if node.get("domain", "") or node.get("overload", ""):
        raise RefusedFile(f"operator {operator!r} of domain {node.get('domain', '')!r}", "the default domain only")
    if operator not in ALLOWED_OPERATORS:
        raise RefusedFile(f"operator {operator!r}", f"one of {' '.join(sorted(ALLOWED_OPERATORS))}")
    for name in node["input"]:
        if name and name not in known:
            raise RefusedFile(f"{operator} reads {name!r}, which nothing before it makes", "nodes in order")
    for name in node["output"]:
        if name in known:
            raise RefusedFile(f"{name!r} made twice", "each value once")
        if name:
            known.add(name)
    names = [attribute.get("name", "") for attribute in node["attribute"]]
    if len(set(names)) < len(names):
        raise RefusedFile(f"attributes {names} of {operator}", "each attribute once")
    return sum(_check_attribute(attribute, operator) for attribute in node["attribute"])


def _check_port(values: list[_Message], role: str, name: str, width: int) -> None:
    """One float32 matrix of free height and given width, under the name that the schema gives it."""
    if len(values) != 1:
        raise RefusedFile(f"{len(values)} {role}s", f"one {role}, {name!r}", is_schema=True)
    value = values[0]
    if value.get("name", "") != name:
        raise RefusedFile(f"{role} {value.get('name', '')!r}", f"{role} {name!r}", is_schema=True)
    tensor = value.get("type", {}).get("tensor_type", {})
    if tensor.get("elem_type", 0) != _FLOAT:
        raise RefusedFile(f"{role} of data type {tensor.get('elem_type', 0)}", "float32 (1)", is_schema=True)
    shape = tensor.get("shape", {}).get("dim", [])
    if any("dim_value" in dim and "dim_param" in dim for dim in shape):
        raise RefusedFile(f"{role} with a dimension of two kinds", "a number or a name")
    dims = [dim.get("dim_value") for dim in shape]
    if dims != [None, width]:
        shown = ["rows" if dim is None else dim for dim in dims]
        raise RefusedFile(f"{role} of shape {shown}", f"['rows', {width}] with free rows", is_schema=True)


def _check_graph(graph: _Message, ports: tuple[tuple[str, int], tuple[str, int]]) -> tuple[tuple[str, ...], int]:
    if not 0 < len(graph["node"]) <= _NODES_MAX:
        raise RefusedFile(f"{len(graph['node'])} nodes", f"1 to {_NODES_MAX}")
    if len(graph["initializer"]) > _TENSORS_MAX:
        raise RefusedFile(f"{len(graph['initializer'])} tensors of weights", f"at most {_TENSORS_MAX}")
    _check_port(graph["input"], "input", *ports[0])
    known = {ports[0][0]}
    weights = 0
    for tensor in graph["initializer"]:
        name = tensor.get("name", "")
        if not name or name in known:
            raise RefusedFile(f"weights named {name!r} twice, or without a name", "a name for each")
        weights += _check_tensor(tensor, f"weights {name!r}")
        known.add(name)
    constants = set(known)
    weights += sum(_check_node(node, known) for node in graph["node"])
    _check_port(graph["output"], "output", *ports[1])
    if ports[1][0] not in known - constants:
        raise RefusedFile(f"output {ports[1][0]!r}, which no node makes", "an output computed from the input")
    return tuple(sorted({node["op_type"] for node in graph["node"]})), weights


def _in(values: range, given: object, what: str) -> int:
    if not isinstance(given, int) or given not in values:
        raise RefusedFile(f"{what} {given}", f"{values[0]} to {values[-1]}")
    return given


def inspect(model: bytes, *, input_port: tuple[str, int], output_port: tuple[str, int]) -> ModelFile:
    """Reads the whole file and says what it holds.

    Parameters
    ----------
    model : bytes
        The file.
    input_port, output_port : (str, int)
        Name and width of the net's one input and one output; both are float32 with free rows.

    Raises
    ------
    RefusedFile
        If anything about it is not as above. Nothing else is raised, whatever the bytes.
    """
    if len(model) > MODEL_BYTES_MAX:
        raise RefusedFile(f"{len(model)} bytes", f"at most {MODEL_BYTES_MAX}")
    if not model:
        raise RefusedFile("an empty file", "an ONNX model")
    read = _message("model", memoryview(model), _Budget())
    if "graph" not in read:
        raise RefusedFile("a file without a graph", "an ONNX model")
    ir_version = _in(IR_VERSIONS, read.get("ir_version"), "IR version")
    opsets = read["opset_import"]
    if len(opsets) != 1 or opsets[0].get("domain", "") not in ("", "ai.onnx"):
        domains = [opset.get("domain", "") for opset in opsets]
        raise RefusedFile(f"operator sets of the domains {domains}", "the default domain only, once")
    opset = _in(OPSETS, opsets[0].get("version"), "operator set")
    operators, weights = _check_graph(read["graph"], (input_port, output_port))
    return ModelFile(ir_version, opset, operators, weights)
