"""The graph around what torch traces: from audio of any length to codes, by the window rule of ``spintok.chunking``.

Long recordings are encoded window by window in a loop, so memory hardly grows with their length. If the encoder
normalises by whole recordings, an earlier loop adds up their sums block by block.
"""

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, compose, helper, parser

from spintok.chunking import Window
from spintok.frames import FrameGrid
from spintok.onnx.modules import SUMS, Pieces

__all__ = ["assemble"]

# Lower-case names that no node gives are constants of ``assemble``, each int64 (1,). "Traced" stands for torch's nodes.
_MAIN = """
tokenizer (float[samples] audio) => (int32[frames] codes) {
    given = Shape (audio)
    # Less than a frame gets zeros behind it, and its one code is dropped at the end.
    length = Max (given, reach)
    missing = Sub (length, given)
    padding = Concat <axis = 0> (zero, missing)
    padded = Pad (audio, padding)
    beyond = Sub (given, overlap)
    hops = Div (beyond, hop)
    total = Max (hops, zero)
    frames_or_one = Max (total, one)
    single = LessOrEqual (frames_or_one, most)
    in_windows = Add (frames_or_one, keep_less_one)
    several = Div (in_windows, keep)
    windows = Where (single, one, several)
    trips = Squeeze (windows)
    no_code = Cast <to = 6> (zero)
    nothing = Slice (no_code, zero, zero)
    %s
    found = Loop (trips, , nothing)
    codes = Slice (found, zero, total)
}
"""

# Of the frames first ... stop of a window, start ... end are kept.
_WINDOW = """
window (int64 index, bool going, int32[before] kept_before) => (bool going_on, int32[after] kept_after) {
    going_on = Identity (going)
    start = Mul (index, keep)
    full = Add (start, keep)
    least_end = Min (full, frames_or_one)
    seen = Add (full, context)
    least_stop = Min (seen, frames_or_one)
    end = Where (single, frames_or_one, least_end)
    stop = Where (single, frames_or_one, least_stop)
    early = Sub (start, context)
    first = Max (early, zero)
    first_sample = Mul (first, hop)
    # A recording of one window is read to its end, each of several windows to the end of its last frame.
    stop_sample = Mul (stop, hop)
    frames_limit = Add (stop_sample, overlap)
    limit = Where (single, length, frames_limit)
    readable = Sub (limit, first_sample)
    before_rest = Sub (readable, rest)
    pieces = Div (before_rest, step)
    stepped = Mul (pieces, step)
    used = Add (stepped, rest)
    last_sample = Add (first_sample, used)
    heard = Slice (padded, first_sample, last_sample)
    window_codes = Traced (heard%s)
    skipped = Sub (start, first)
    kept = Sub (end, first)
    kept_codes = Slice (window_codes, skipped, kept)
    kept_after = Concat <axis = 0> (kept_before, kept_codes)
}
"""

# Blocks of ``keep`` frames; the last one takes what is left, so none is shorter than a patch.
_MAIN_SUMS = """
    fitting = Div (length, block)
    blocks = Max (fitting, one)
    block_trips = Squeeze (blocks)
    %s = Loop (block_trips, , %s)
"""

_SUMS = """
sums (int64 index, bool going, %s) => (bool going_on, %s) {
    going_on = Identity (going)
    following = Add (index, one)
    begin = Mul (index, block)
    full = Mul (following, block)
    is_last = Equal (following, blocks)
    close = Where (is_last, length, full)
    own = Slice (padded, begin, close)
    overlapping = Add (full, patch_rest)
    limit = Where (is_last, length, overlapping)
    readable = Sub (limit, begin)
    before_rest = Sub (readable, patch_rest)
    pieces = Div (before_rest, patch_step)
    stepped = Mul (pieces, patch_step)
    used = Add (stepped, patch_rest)
    last_sample = Add (begin, used)
    patches = Slice (padded, begin, last_sample)
    %s = Traced (own, patches)
    %s
}
"""


def assemble(
    window: Window,
    grid: FrameGrid,
    codes: ModelProto,
    pieces: Pieces,
    sums: ModelProto | None = None,
    patches: Pieces | None = None,
) -> GraphProto:
    """The graph of a tokenizer, ``audio`` to ``codes``.

    Args:
        window: the window of long recordings.
        grid: the grid of the frames.
        codes, pieces: ``WindowCodes`` as torch exports it, and how its samples are counted.
        sums, patches: the same of ``BlockSums``, if the encoder normalises by whole recordings.
    """
    constants = {"zero": 0, "one": 1, "hop": grid.hop, "reach": grid.reach, "overlap": grid.reach - grid.hop}
    constants |= {"keep": window.keep, "keep_less_one": window.keep - 1, "context": window.context}
    constants |= {"most": window.frames, "step": pieces.step, "rest": pieces.reach - pieces.step}
    if sums is None or patches is None:
        main = parser.parse_graph(_MAIN % "")
        bodies = [_spliced(main, _WINDOW % "", codes, "window/")]
    else:
        before, after, parts, starts = (
            [f"{prefix}{name}" for name in SUMS] for prefix in ("before_", "", "part_", "start_")
        )
        constants |= {"patch_step": patches.step, "patch_rest": patches.reach - patches.step}
        constants["block"] = window.keep * grid.hop
        main = parser.parse_graph(_MAIN % (_MAIN_SUMS % (", ".join(after), ", ".join(starts))))
        adding = "\n".join(f"after_{name} = Add (before_{name}, part_{name})" for name in SUMS)
        text = _SUMS % (
            ", ".join(f"double {name}" for name in before),
            ", ".join(f"double after_{name}" for name in SUMS),
            ", ".join(parts),
            adding,
        )
        body = _spliced(main, text, sums, "sums/")
        for start, summand, carried, result in zip(
            starts, sums.graph.output, body.input[2:], body.output[1:], strict=True
        ):
            carried.type.CopyFrom(summand.type)
            result.type.CopyFrom(summand.type)
            shape = [dim.dim_value for dim in summand.type.tensor_type.shape.dim]
            main.initializer.append(helper.make_tensor(start, TensorProto.DOUBLE, shape, np.zeros(shape).flatten()))
        bodies = [body, _spliced(main, _WINDOW % "".join(f", {name}" for name in after), codes, "window/")]
    loops = [node for node in main.node if node.op_type == "Loop"]
    for node, body in zip(loops, bodies, strict=True):
        node.attribute.append(helper.make_attribute("body", body))
    main.initializer.extend(
        helper.make_tensor(name, TensorProto.INT64, [1], [value]) for name, value in constants.items()
    )
    return main


def _spliced(main: GraphProto, text: str, traced: ModelProto, prefix: str) -> GraphProto:
    """The loop body of a text with torch's nodes in the place of "Traced"; their weights go to the main graph."""
    body = parser.parse_graph(text)
    inner = compose.add_prefix(traced, prefix).graph
    place = next(index for index, node in enumerate(body.node) if node.op_type == "Traced")
    call = body.node[place]
    given = [helper.make_node("Identity", [a], [b.name]) for a, b in zip(call.input, inner.input, strict=True)]
    found = [helper.make_node("Identity", [a.name], [b]) for a, b in zip(inner.output, call.output, strict=True)]
    nodes = [*body.node[:place], *given, *inner.node, *found, *body.node[place + 1 :]]
    del body.node[:]
    body.node.extend(nodes)
    main.initializer.extend(inner.initializer)
    return body
