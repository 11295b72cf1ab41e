"""What stands in a compiled program: fused attention calls, matrix products, collectives, and how often each runs.

Read from the text of an optimised HLO module (`compiled.as_text()`), of any backend. A loop's body counts as often as
XLA says that it runs. Where that is known at run time only, it counts once; both sides of a branch count.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator

BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128}  # of the others the first number is: f32, s8, f8e4m3fn
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")

HEADER = re.compile(r"(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) \(.*\) -> .* \{$")
INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<result>.*?) (?P<opcode>[a-z][\w-]*)\((?P<rest>.*)")
SHAPE = re.compile(r"\b(?P<dtype>pred|[a-z]+\d+\w*)\[(?P<dims>[\d,]*)\]")
CALLED = re.compile(r"\b(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.-]+)")
BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
TARGET = re.compile(r'custom_call_target="([^"]*)"')
CONTRACTED = re.compile(r'lhs_contracting_(?:dims=\{|dimensions":\[)([\d,"]*)')


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array's element type, as HLO spells it, and dimensions."""

    dtype: str
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        bits = BITS.get(self.dtype) or int(re.findall(r"\d+", self.dtype)[0])
        return -(-self.size * bits // 8)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: `results` are the arrays of a tuple, `rest` the operands and everything behind them."""

    name: str
    results: tuple[Shape, ...]
    opcode: str
    rest: str

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.-]+)", self.rest.partition(")")[0])

    @property
    def target(self) -> str:
        """The library that a custom call goes to, "" for any other instruction."""
        found = TARGET.search(self.rest) if self.opcode == "custom-call" else None
        return found[1] if found else ""


@dataclasses.dataclass(frozen=True)
class Product:
    """A matrix product: the types of its operands, and the operations of all its executions (two a multiplication)."""

    operands: tuple[Shape, Shape]
    result: Shape
    operations: int

    @property
    def dtype(self) -> str:
        """The wider of the operands' types."""
        return max(self.operands, key=lambda shape: shape.bytes / max(shape.size, 1)).dtype


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange between devices: its kind, what each device gets of it, and how often it runs."""

    kind: str
    shapes: tuple[Shape, ...]
    times: int

    @property
    def bytes(self) -> int:
        """Of all executions."""
        return self.times * sum(shape.bytes for shape in self.shapes)


class Program:
    """An HLO module in parts.

    Args:
        text: what `compiled.as_text()` gives.
    """

    def __init__(self, text: str):
        self.computations: dict[str, list[Instruction]] = {}
        current: list[Instruction] = []
        entry = ""
        for line in text.splitlines():
            if header := HEADER.match(line):
                current = self.computations[header["name"]] = []
                entry = header["name"] if header["entry"] else entry
            elif found := INSTRUCTION.match(line):
                results = tuple(Shape(shape["dtype"], tuple(int(n) for n in shape["dims"].split(",") if n))
                                for shape in SHAPE.finditer(found["result"]))
                current.append(Instruction(found["name"], results, found["opcode"], found["rest"]))
        if not entry:
            raise ValueError("no HLO module: no computation is marked ENTRY")
        self.times: Counter[str] = Counter()  # executions of each computation
        self._count(entry, 1)

    def _count(self, computation: str, times: int) -> None:
        self.times[computation] += times
        for instruction in self.computations.get(computation, ()):
            called = CALLED.findall(instruction.rest)
            for branches in BRANCHES.findall(instruction.rest):
                called += re.findall(r"[\w.-]+", branches)
            trips = TRIPS.search(instruction.rest) if instruction.opcode == "while" else None
            for name in called:
                self._count(name, times * (int(trips[1]) if trips else 1))

    def _instructions(self) -> Iterator[tuple[Instruction, dict[str, Shape], int]]:
        """Every instruction that runs, with the first result of its computation's instructions and its executions."""
        for computation, instructions in self.computations.items():
            shapes = {i.name: i.results[0] for i in instructions if i.results}
            for instruction in instructions if self.times[computation] else ():
                yield instruction, shapes, self.times[computation]

    def fused_attention(self) -> tuple[int, int]:
        """Calls of cuDNN's fused attention that stand in the program: forward, backward."""
        targets = [i.target for i, _, _ in self._instructions() if i.target.startswith("__cudnn$fmha")]
        backward = sum(target.endswith("Backward") for target in targets)
        return len(targets) - backward, backward

    def products(self) -> list[Product]:
        """Matrix products, whoever computes them; attention in one fused call is none."""
        found = []
        for instruction, shapes, times in self._instructions():
            if instruction.opcode == "dot" or instruction.target.startswith("__cublas$"):
                left, right = (shapes[name] for name in instruction.operands[:2])
                contracted = CONTRACTED.search(instruction.rest)
                inner = math.prod(left.dims[int(n)] for n in re.findall(r"\d+", contracted[1] if contracted else ""))
                result = instruction.results[0]
                found.append(Product((left, right), result, 2 * result.size * inner * times))
        return found

    def collectives(self) -> list[Collective]:
        """Exchanges between devices, each with the arrays that a device gets, in the order of the program."""
        found = []
        for instruction, _, times in self._instructions():
            kind, asynchronous = instruction.opcode.removesuffix("-start"), instruction.opcode.endswith("-start")
            if kind in COLLECTIVES:
                shapes = instruction.results
                if asynchronous and kind not in ("all-reduce", "all-to-all"):  # (operands, results[, context])
                    operands = len(instruction.operands)
                    shapes = shapes[operands:2 * operands]
                found.append(Collective(kind, shapes, times))
        return found
