"""Compile a Triton kernel for an H100 or H200 on a machine that has no GPU, and read what came out.

Triton's own compiler and the `ptxas` and `cuobjdump` of its wheel make the machine code that a GPU would run,
so registers, spills, shared memory and the instructions used are facts here; only time is not.
"""

import subprocess
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

__all__ = ["SHARED_LIMIT", "Machine", "compile_sm90"]

# What one thread block may use of an SM's shared memory, bytes.
SHARED_LIMIT = 227 * 1024


@dataclass(frozen=True)
class Machine:
    """One kernel's machine code: registers a thread, stack (spill) and shared bytes, the disassembly."""

    name: str
    registers: int
    stack_bytes: int
    shared_bytes: int
    sass: str

    def count(self, opcode: str) -> int:
        """How many instructions have this opcode, for example `HGMMA` (Hopper's matrix instruction)."""
        return sum(opcode == _opcode(line) for line in self.sass.splitlines())

    def problems(self) -> list[str]:
        """What keeps the kernel from launching or makes it slow: spills, too much shared memory."""
        found = []
        if self.stack_bytes:
            found.append(f"{self.stack_bytes} bytes of stack")
        if spilled := self.count("LDL") + self.count("STL"):
            found.append(f"{spilled} local-memory instructions")
        if self.shared_bytes > SHARED_LIMIT:
            found.append(f"{self.shared_bytes} bytes of shared memory, over {SHARED_LIMIT}")
        return found


def compile_sm90(
    kernel: Any,
    signature: Mapping[str, str],
    constexprs: Mapping[str, Any],
    *,
    num_warps: int = 4,
    num_stages: int = 3,
    unaligned: Collection[str] = (),
) -> Machine:
    """Compile `kernel` for sm_90.

    `signature` maps each run-time argument to Triton's name of its type ("*fp16", "*fp32", "*i64", "i32",
    "fp32"), `constexprs` each compile-time one to its value. Pointers count as 16-byte aligned, as torch's
    are, but for those in `unaligned`. Kernels decorated under the interpreter are compiled all the same.
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
    options = {"num_warps": num_warps, "num_stages": num_stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        usage, sass = _cuobjdump("-res-usage", cubin), _cuobjdump("--dump-sass", cubin)
    fields = dict(word.split(":", 1) for word in usage.split() if word.startswith(("REG:", "STACK:")))
    return Machine(
        name=function.__name__,
        registers=int(fields["REG"]),
        stack_bytes=int(fields["STACK"]),
        shared_bytes=int(compiled.metadata.shared),
        sass=sass,
    )


def _cuobjdump(option: str, cubin: Path) -> str:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return subprocess.run([tool, option, cubin], check=True, capture_output=True, text=True).stdout


def _opcode(line: str) -> str:
    """`LDG` of `/*0040*/  @P0 LDG.E.128 R4, [R2] ;  /* ... */`, "" for a line without an instruction."""
    words = line.split("*/", 1)[-1].split()
    if words and words[0].startswith("@"):
        words = words[1:]
    return words[0].split(".")[0] if words else ""
