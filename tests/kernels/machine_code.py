"""Compile Triton kernels without a GPU and read the machine code.

Triton's compiler and the `ptxas` and `cuobjdump` of its wheel make the code that a GPU runs, so registers, spills,
shared memory and instructions are facts; only time is not.
"""

import subprocess
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

__all__ = ["SHARED_LIMIT", "Machine", "compile_kernel"]

# Bytes of shared memory that one thread block may use, by compute capability.
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}


@dataclass(frozen=True)
class Machine:
    """One kernel's machine code: registers of a thread, bytes of stack (spills) and shared memory, PTX and binary."""

    name: str
    capability: int
    registers: int
    stack_bytes: int
    shared_bytes: int
    ptx: str = field(repr=False)
    cubin: bytes = field(repr=False)

    @cached_property
    def sass(self) -> str:
        """The disassembly, which takes as long as compiling."""
        return _cuobjdump("--dump-sass", self.cubin)

    def count(self, opcode: str) -> int:
        """Count the instructions with this opcode, for example `HGMMA` (the matrix instruction of Hopper)."""
        return sum(opcode == _opcode(line) for line in self.sass.splitlines())

    @property
    def matrix_instructions(self) -> int:
        """The number of instructions for the tensor cores of this GPU: mma.sync, wgmma or tcgen05."""
        return self.count({80: "HMMA", 90: "HGMMA", 100: "UTCHMMA"}[self.capability])

    @property
    def uses_tensor_cores(self) -> bool:
        """Whether the PTX has such instructions, which ptxas only translates: needs no disassembly."""
        return {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma"}[self.capability] in self.ptx

    def problems(self) -> list[str]:
        """Report what keeps the kernel from launching or makes it slow: spills, too much shared memory."""
        found = []
        if self.stack_bytes:
            # Local memory is the stack: without one, nothing is loaded or stored there.
            spilled = self.count("LDL") + self.count("STL")
            found.append(f"{self.stack_bytes} bytes of stack, {spilled} local-memory instructions")
        if self.shared_bytes > SHARED_LIMIT[self.capability]:
            found.append(f"{self.shared_bytes} bytes of shared memory, over {SHARED_LIMIT[self.capability]}")
        return found


def compile_kernel(
    kernel: Any,
    signature: Mapping[str, str],
    constexprs: Mapping[str, Any],
    *,
    unaligned: Collection[str] = (),
    capability: int = 90,
    **options: int,
) -> Machine:
    """Compile `kernel` for a compute capability, 90 for Hopper.

    `signature` maps each run-time argument to Triton's name of its type ("*fp16", "*fp32", "*i64", "i32", "fp32") and
    `constexprs` each compile-time argument to its value. Pointers are taken to be aligned to 16 bytes, like those of
    torch, except those in `unaligned`. `options` are those of a launch. Kernels that were decorated under the
    interpreter are compiled too.
    """
    function = kernel if isinstance(kernel, JITFunction) else JITFunction(kernel.fn)
    names = list(function.arg_names)
    if missing := set(names) ^ (set(signature) | set(constexprs)):
        raise ValueError(f"{function.__name__}: arguments that do not match: {sorted(missing)}")
    source = ASTSource(
        fn=function,
        signature={name: signature.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in constexprs.items()},
        attrs={
            (names.index(name),): [["tt.divisibility", 16]]
            for name, kind in signature.items()
            if kind.startswith("*") and name not in unaligned
        },
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    cubin = compiled.asm["cubin"]
    usage = _cuobjdump("-res-usage", cubin)
    fields = dict(word.split(":", 1) for word in usage.split() if word.startswith(("REG:", "STACK:")))
    return Machine(
        name=function.__name__,
        capability=capability,
        registers=int(fields["REG"]),
        stack_bytes=int(fields["STACK"]),
        shared_bytes=int(compiled.metadata.shared),
        ptx=compiled.asm["ptx"],
        cubin=cubin,
    )


def _cuobjdump(option: str, cubin: bytes) -> str:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        return subprocess.run([tool, option, path], check=True, capture_output=True, text=True).stdout


def _opcode(line: str) -> str:
    """`LDG` of `/*0040*/  @P0 LDG.E.128 R4, [R2] ;  /* ... */`, "" for a line without an instruction."""
    words = line.split("*/", 1)[-1].split()
    if words and words[0].startswith("@"):
        words = words[1:]
    return words[0].split(".")[0] if words else ""
