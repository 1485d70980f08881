"""Charts of the usage of codewords, the lengths of runs and the token rate."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spintok.report.charts import Chart, Note, Point, Table, Tick, linear_ticks, log_ticks, thinned
from spintok.report.page import number, percent
from spintok.stats.counts import SECONDS, TokenCounts
from spintok.stats.metrics import TAIL

__all__ = ["imbalance_chart", "lorenz", "run_length_chart", "speaker_chart", "time_chart", "usage_chart"]

_LONGEST = 30
_FEW = 0.002


def usage_chart(statistics: TokenCounts, figures: dict[str, Any]) -> Chart:
    """The share of each codeword, most used first, on a logarithmic scale; unused codewords are at the bottom."""
    counts, size = statistics.tokens, statistics.codebook_size
    total = max(int(counts.sum()), 1)
    order = np.argsort(-counts, kind="stable")
    share = counts[order] / total
    used = share[share > 0]
    low, high, y_ticks = log_ticks(min(used[-1], 1 / size), max(used[0], 1 / size)) if used.size else (-2.0, 0.0, [])

    def height(value: float) -> float:
        return max(0.0, (math.log10(value) - low) / (high - low)) if value > 0 else 0.0

    points = [
        Point(
            (rank + 0.5) / size,
            height(float(share[rank])),
            f"Rank {rank + 1}: code {order[rank]}\n{counts[order[rank]]:,} tokens, {percent(float(share[rank]))}"
            if share[rank]
            else f"Rank {rank + 1}: code {order[rank]}\nnever used",
        )
        for rank in thinned(size)
    ]
    top = min(10, size)
    dead = figures["dead_codewords"]
    return Chart(
        name="usage",
        title="Usage of codewords",
        finding=f"The {top} most used of {size:,} codewords make up {percent(float(share[:top].sum()))} of the tokens; "
        + ("every codeword occurs." if dead == 0 else f"{dead:,} never {'occurs' if dead == 1 else 'occur'}."),
        x_title="codewords, most used first",
        y_title="share of tokens, log scale",
        x_ticks=_rank_ticks(size),
        y_ticks=y_ticks,
        kind="line",
        points=points,
        line=((0, height(1 / size)), (1, height(1 / size))),
        notes=(Note(1, height(1 / size), f"even: {percent(1 / size)}", side="left"),),
        table=Table.of(
            ("rank", "code", "tokens", "share", "frames"),
            [
                (
                    rank + 1,
                    int(code),
                    f"{counts[code]:,}",
                    percent(counts[code] / total),
                    f"{statistics.frames[code]:,}",
                )
                for rank, code in enumerate(order.tolist())
            ],
            chips=(1,),
        ),
    )


def lorenz(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of all occurrences that belong to the n rarest codewords, n = 0 ... K, (K + 1,). Lorenz 1905."""
    return np.concatenate([[0.0], np.cumsum(np.sort(counts)) / max(int(counts.sum()), 1)])


def imbalance_chart(statistics: TokenCounts, figures: dict[str, Any]) -> Chart:
    """The Lorenz curve of the codewords, with Gini coefficient and tail share."""
    curve, size = lorenz(statistics.tokens), statistics.codebook_size
    tail = figures["tail_share"]
    fifths = [Tick(i / 5, f"{20 * i} %") for i in range(6)]
    return Chart(
        name="imbalance",
        title="Imbalance",
        finding=f"The rarest {percent(TAIL)} of the codewords make up {percent(tail)} of the tokens (tail share). Gini "
        f"{number(figures['gini'])}, where 0 is even use and 1 is one code for all.",
        x_title="share of codewords, rarest first",
        y_title="share of tokens",
        x_ticks=fifths,
        y_ticks=fifths,
        kind="area",
        points=[
            Point(
                n / size, float(curve[n]), f"The {n:,} rarest codewords\nhold {percent(float(curve[n]))} of the tokens"
            )
            for n in thinned(size + 1)
        ],
        line=((0, 0), (1, 1)),
        notes=(
            Note(0.62, 0.66, "even use", side="left"),
            Note(TAIL, tail, f"● tail share {percent(tail)}", side="below"),
        ),
        table=Table.of(
            ("rarest codewords", "hold of the tokens"),
            [(f"{10 * i} %", percent(float(np.interp(i / 10 * size, np.arange(size + 1), curve)))) for i in range(11)],
        ),
    )


def run_length_chart(statistics: TokenCounts, figures: dict[str, Any]) -> Chart:
    """The share of runs of 1, 2, ... frames; the last bar also contains all longer runs."""
    runs = statistics.run_lengths
    total = max(int(runs.sum()), 1)
    milliseconds = 1000 // statistics.frame_rate
    # The last bar contains the few longer runs.
    most = int(np.searchsorted(np.cumsum(runs), (1 - _FEW) * total)) + 1
    longest = min(max(figures["run_length_max"], 1), max(most, 10), _LONGEST)
    shares = np.zeros(longest)
    shares[: min(longest, runs.size - 1)] = runs[1 : longest + 1] / total
    shares[-1] += runs[longest + 1 :].sum() / total
    beyond = figures["run_length_max"] > longest
    top, y_ticks = linear_ticks(float(shares.max()), scale=100, suffix=" %")

    def name(length: int) -> str:
        frames = f"{length} frame{'' if length == 1 else 's'}"
        return f"{frames} or more" if beyond and length == longest else f"{frames}, {length * milliseconds} ms"

    step = 1 if longest <= 10 else 5
    labelled = [n for n in (1, *range(step, longest + 1, step)) if step == 1 or n < longest - 1] + [longest]
    return Chart(
        name="run-lengths",
        title="Run lengths",
        finding=f"A token lasts {number(figures['run_length_mean'])} frames on average "
        f"({figures['run_length_mean'] * milliseconds:.0f} ms); half last at most {figures['run_length_median']}, "
        f"90\u00a0% at most {figures['run_length_p90']}, the longest {figures['run_length_max']:,}.",
        x_title=f"frames ({milliseconds} ms each)",
        y_title="share of tokens",
        x_ticks=[
            Tick((n - 0.5) / longest, f"{n}+" if beyond and n == longest else str(n)) for n in dict.fromkeys(labelled)
        ],
        y_ticks=y_ticks,
        kind="bars",
        points=[
            Point(
                (n - 0.5) / longest, float(shares[n - 1]) / top, f"{name(n)}\n{percent(float(shares[n - 1]))} of tokens"
            )
            for n in range(1, longest + 1)
        ],
        table=Table.of(
            ("frames", "tokens", "share"),
            [(n, f"{runs[n]:,}", percent(runs[n] / total)) for n in np.flatnonzero(runs).tolist()],
        ),
    )


def time_chart(statistics: TokenCounts, figures: dict[str, Any]) -> Chart | None:
    """Tokens a second in each second from the start of an utterance; None if fewer than two seconds have speech."""
    rates = figures["token_rate_over_time"]
    speech = statistics.over_time[0] / statistics.frame_rate
    known = [second for second, rate in enumerate(rates) if rate is not None]
    if len(known) < 2:
        return None
    top, y_ticks = linear_ticks(max(rates[second] for second in known))
    last, x_ticks = linear_ticks(len(rates))

    def name(second: int) -> str:
        return f"Second {second} to {second + 1}" if second < SECONDS - 1 else f"From second {second} on"

    return Chart(
        name="over-time",
        title="Token rate over time",
        finding=f"Tokens a second, by the time since the start of an utterance; {figures['token_rate']:.2f} overall. "
        "Few utterances last long, so late seconds are uncertain.",
        x_title="seconds from the start",
        y_title="tokens a second",
        x_ticks=x_ticks,
        y_ticks=y_ticks,
        kind="line",
        points=[
            Point(
                (second + 0.5) / last,
                rates[second] / top,
                f"{name(second)}\n{rates[second]:.2f} tokens a second\n{number(float(speech[second]))} s of speech",
            )
            for second in (known[i] for i in thinned(len(known)))
        ],
        line=((0, figures["token_rate"] / top), (1, figures["token_rate"] / top)),
        table=Table.of(
            ("second", "tokens a second", "seconds of speech"),
            [(second, f"{rates[second]:.2f}", number(float(speech[second]))) for second in known],
        ),
    )


def speaker_chart(statistics: TokenCounts, figures: dict[str, Any]) -> Chart | None:
    """Tokens a second of each speaker, slowest first; None for fewer than two speakers."""
    rates = sorted(figures["token_rate_by_speaker"].items(), key=lambda item: (item[1], item[0]))
    if len(rates) < 2 or rates[-1][1] == 0:
        return None
    top, y_ticks = linear_ticks(rates[-1][1])
    return Chart(
        name="speakers",
        title="Token rate by speaker",
        finding=f"From {rates[0][1]:.2f} to {rates[-1][1]:.2f} tokens a second over {len(rates):,} speakers, slowest "
        "first.",
        x_title="speakers, slowest first",
        y_title="tokens a second",
        x_ticks=_rank_ticks(len(rates)),
        y_ticks=y_ticks,
        kind="bars" if len(rates) <= 100 else "area",
        points=[
            Point(
                (i + 0.5) / len(rates), rates[i][1] / top, f"Speaker {rates[i][0]}\n{rates[i][1]:.2f} tokens a second"
            )
            for i in thinned(len(rates))
        ],
        line=((0, figures["token_rate"] / top), (1, figures["token_rate"] / top)),
        table=Table.of(
            ("speaker", "tokens a second", "utterances", "seconds of speech"),
            [
                (
                    name,
                    f"{rate:.2f}",
                    f"{statistics.speakers[name][0]:,}",
                    number(statistics.speakers[name][1] / statistics.frame_rate),
                )
                for name, rate in rates
            ],
        ),
    )


def _rank_ticks(size: int) -> list[Tick]:
    """Ticks at ranks 1 to ``size``: the first, round numbers, and the last."""
    _, ticks = linear_ticks(size)
    step = int(ticks[1].label) if size >= 4 else 1
    inner = [n for n in range(step, size, step) if 0.12 * size < n < 0.88 * size]
    return [Tick((n - 0.5) / size, f"{n:,}") for n in dict.fromkeys([1, *inner, size])]
