"""Speaker perturbation compared with Praat's: accuracy of the ratios, similarity of the results, and speed.

    spintok bench perturb AUDIO [--files 40] [--rounds 5]

AUDIO is a folder of audio files, or a JSON lines manifest whose ``path`` fields are relative to it.
WORLD (``pip install pyworld``) measures the achieved ratios of both (pitch: DIO with StoneMask; formants:
the shift along log frequency that best aligns CheapTrick's envelopes of output and input). Then cepstral correlations
are compared, as a proxy of intelligibility. Last both are timed in turn, each in two processes with one thread.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import parselmouth
import pyworld
import soundfile
import torch
from spintok_kernels.perturb import equalize
from spintok_kernels.perturb.cpu import PERTURB

from spintok.augment import Perturbation, draw, perturb, utterance_rng
from spintok.augment.praat_child import change_gender

RATE = 16_000
PERIOD = 10.0  # milliseconds between the frames that WORLD analyses
FFT_SIZE = 1024
BINS_PER_OCTAVE = 48
CASES = (
    (1.0, 1.0, 1.0),
    (1.0, 1.3, 1.0),
    (1.0, 1.9, 1.0),
    (1.0, 1 / 1.3, 1.0),
    (1.0, 1 / 1.9, 1.0),
    (1.0, 1.0, 1.5),
    (1.0, 1.0, 1 / 1.5),
    (1.15, 1.0, 1.0),
    (1.35, 1.0, 1.0),
    (1 / 1.15, 1.0, 1.0),
    (1 / 1.35, 1.0, 1.0),
    (1.2, 1.5, 1.2),
    (1 / 1.2, 1 / 1.5, 1 / 1.2),
)
Wave = np.ndarray


def load(audio: Path, count: int) -> list[Wave]:
    """``count`` files in random order, balanced over source, sex and age if the manifest has them."""
    if audio.is_dir():
        paths = sorted(path for path in audio.rglob("*") if path.suffix in {".wav", ".flac", ".ogg", ".opus"})
        groups = {"": paths}
    else:
        groups = {}
        for line in audio.read_text().splitlines():
            entry = json.loads(line)
            child = entry.get("age") is not None and entry["age"] < 14
            key = f"{entry.get('source')} {entry.get('sex')} {'child' if child else ''}"
            groups.setdefault(key, []).append(audio.parent / entry["path"])
    rng = random.Random(0)
    for paths in groups.values():
        rng.shuffle(paths)
    rounds = [path for turn in zip(*(paths[:count] for paths in groups.values()), strict=False) for path in turn]
    waves = []
    for path in rounds[:count]:
        wave, rate = soundfile.read(path, dtype="float32")
        if rate != RATE or wave.ndim != 1:
            raise SystemExit(f"{path}: need 16 kHz mono")
        waves.append(wave)
    return waves


def batch(waves: list[Wave]) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(wave) for wave in waves])
    return torch.nn.utils.rnn.pad_sequence([torch.from_numpy(w) for w in waves], batch_first=True), lengths


def ours(waves: list[Wave], parameters: list[Perturbation]) -> list[Wave]:
    padded, lengths = batch(waves)
    changed = perturb(padded, lengths, parameters)
    return [row[:length].numpy() for row, length in zip(changed, lengths, strict=True)]


def praats(waves: list[Wave], parameters: list[Perturbation]) -> list[Wave]:
    """Praat in this process, without the child process and its pipe, which is the fastest way to run it."""
    changed = []
    for wave, p in zip(waves, parameters, strict=True):
        moved = change_gender(wave.astype(np.float64), p.formant, p.median, p.spread)
        colored = equalize(torch.from_numpy(moved).float()[None], torch.tensor([p.gains]), torch.tensor([p.qs]))
        changed.append(colored.clamp_(-1, 1)[0].numpy())
    return changed


def analyze(wave: Wave, middle: float) -> tuple[Wave, Wave, Wave, Wave]:
    """F0 (DIO, in a range around ``middle``), log envelopes (CheapTrick), frame energies in dB, second differences."""
    x = wave.astype(np.float64)
    f0, at = pyworld.dio(x, RATE, f0_floor=0.5 * middle, f0_ceil=2.2 * middle, frame_period=PERIOD)
    f0 = pyworld.stonemask(x, f0, at, RATE)
    spectrum = np.log(pyworld.cheaptrick(x, f0, at, RATE, fft_size=FFT_SIZE) + 1e-12)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(x, (200, 600)), 400)[:: int(RATE * PERIOD / 1000)]
    energy = 10 * np.log10((frames**2).mean(1) + 1e-10)
    return f0, spectrum, energy[: len(f0)], np.abs(np.diff(x, 2))


def formant_ratio(before: Wave, after: Wave) -> float:
    """The frequency ratio that best aligns two series of log envelopes over 300-4500 Hz, the same for all frames."""
    low, high = 300.0, 4500.0
    steps = round(BINS_PER_OCTAVE * np.log2(high / low))
    frequencies = low * 2 ** (np.arange(steps) / BINS_PER_OCTAVE)

    def bands(envelopes: Wave, ratio: float) -> Wave:
        at = np.clip(frequencies * ratio * FFT_SIZE / RATE, 0, FFT_SIZE // 2 - 1e-6)
        whole = at.astype(int)
        values = envelopes[:, whole] * (1 - at + whole) + envelopes[:, whole + 1] * (at - whole)
        return values - values.mean(1, keepdims=True)

    target = bands(after, 1.0)
    ratios = 2 ** (np.arange(-38, 39) / BINS_PER_OCTAVE)
    scores = []
    for ratio in ratios:
        source = bands(before, 1 / ratio)
        scores.append(np.median((source * target).sum(1) / np.sqrt((source**2).sum(1) * (target**2).sum(1))))
    best = int(np.clip(np.argmax(scores), 1, len(scores) - 2))
    left, middle, right = scores[best - 1 : best + 2]
    offset = 0.5 * (left - right) / min(left - 2 * middle + right, -1e-9)
    return float(ratios[best] * 2 ** (np.clip(offset, -0.5, 0.5) / BINS_PER_OCTAVE))


def median_pitch(wave: Wave) -> float:
    """Hertz by Praat, 0 without voice: the mains hum of some recordings must not pass for a voice."""
    sound = parselmouth.Sound(wave.astype(np.float64), RATE)
    track = sound.to_pitch(pitch_floor=60, pitch_ceiling=600).selected_array["frequency"]
    return float(np.median(track[track > 0])) if (track > 0).sum() >= 20 else 0.0


def judge(waves: list[Wave], method: Callable[..., list[Wave]]) -> list[list]:
    middles = [median_pitch(wave) for wave in waves]
    references = [analyze(wave, middle) for wave, middle in zip(waves, middles, strict=True)]
    rows = []
    for case in CASES:
        changed = method(waves, [Perturbation(*case)] * len(waves))
        pitch, spread, formant, contour, silence, clicks, gross, lost = ([] for _ in range(8))
        for wave, new, old, middle in zip(waves, changed, references, middles, strict=True):
            assert new.shape == wave.shape
            assert np.isfinite(new).all()
            f0, envelope, energy, jumps = analyze(new, middle * case[1])
            loud = old[2] > old[2].max() - 25
            voiced = (f0 > 0) & (old[0] > 0) & loud
            if voiced.sum() < 20:
                continue
            pitch.append(np.median(f0[voiced]) / np.median(old[0][voiced]) / case[1] - 1)
            center = case[1] * np.median(old[0][voiced])
            asked = center + (case[1] * old[0][voiced] - center) * case[2]
            gross.append(np.mean(np.abs(f0[voiced] / asked - 1) > 0.2))
            lost.append(1 - voiced.sum() / ((old[0] > 0) & loud).sum())
            wide = [np.subtract(*np.quantile(t[voiced], [0.75, 0.25])) / np.median(t[voiced]) for t in (f0, old[0])]
            spread.append(wide[0] / wide[1] / case[2] - 1)
            formant.append(formant_ratio(old[1][voiced], envelope[voiced]) / case[0] - 1)
            kept = old[2] > old[2].max() - 50
            contour.append(np.corrcoef(energy[kept], old[2][kept])[0, 1])
            quiet = old[2] < np.quantile(old[2], 0.1)
            silence.append(np.median(energy[quiet] - old[2][quiet]))
            clicks.append(jumps.max() / np.sqrt((new**2).mean()) / (old[3].max() / np.sqrt((wave**2).mean())))
        row = [case]
        for errors in (pitch, spread, formant):
            row += [np.median(errors), np.median(np.abs(errors)), np.quantile(np.abs(errors), 0.9)]
        row += [np.median(contour), np.min(contour), np.median(silence), np.median(clicks), np.max(clicks)]
        rows.append([*row, np.mean(gross), np.mean(lost)])
    return rows


def show(name: str, rows: list[list]) -> None:
    print(f"\n{name}. Errors in %: bias (median), median of |error| and its 90th percentile, over files")
    print("gross: frames with F0 off by > 20 %; lost: voiced frames no longer voiced; energy: correlation along")
    print("time of frame dB; quiet: change of the quietest tenth; clicks: peak second difference over rms,")
    print("against the input's")
    columns = "formant median range | median F0         gross  lost | F0 range          | formants          | "
    print(columns + "energy    min | quiet dB | clicks   max")
    for (formant, median, spread), *v in rows:
        errors = ["{:+5.1f} {:5.1f} {:5.1f}".format(*(100 * e for e in v[i : i + 3])) for i in (0, 3, 6)]
        print(f"   {formant:4.2f}   {median:4.2f}  {spread:4.2f} | {errors[0]}", end="")
        print(f" {100 * v[14]:5.1f} {100 * v[15]:5.1f} | {errors[1]} | {errors[2]}", end="")
        print(f" | {v[9]:6.3f} {v[10]:6.3f} | {v[11]:+8.1f} | {v[12]:6.2f} {v[13]:5.2f}")


def content(waves: list[Wave]) -> None:
    """Correlation along time of the cepstra of both results, under Spin's draws."""
    parameters = [draw(utterance_rng(1, 0, str(index))) for index in range(len(waves))]
    basis = np.cos(np.pi / 40 * np.outer(np.arange(1, 13), np.arange(40) + 0.5))
    edges = 700 * (10 ** (np.linspace(0, 2840, 42) / 2595) - 1)
    bins = np.arange(257) * RATE / 512
    filters = np.stack([np.interp(bins, edges[i : i + 3], [0, 1, 0]) for i in range(40)], 1)

    def cepstra(wave: Wave) -> Wave:
        frames = np.lib.stride_tricks.sliding_window_view(wave, 400)[::160] * np.hanning(400)
        return np.log(np.abs(np.fft.rfft(frames, 512)) ** 2 @ filters + 1e-7) @ basis.T

    def correlation(one: Wave, other: Wave) -> float:
        return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(one.T, other.T, strict=True)]))

    table = {"ours, Praat's": [], "ours, original": [], "Praat's, original": [], "two draws of Praat's": []}
    other_draws = [draw(utterance_rng(2, 0, str(index))) for index in range(len(waves))]
    all_waves = zip(waves, ours(waves, parameters), praats(waves, parameters), praats(waves, other_draws), strict=True)
    for quadruple in all_waves:
        original, mine, praat, other = map(cepstra, quadruple)
        pairs = ((mine, praat), (mine, original), (praat, original), (praat, other))
        for values, pair in zip(table.values(), pairs, strict=True):
            values.append(correlation(*pair))
    print("\nMel-cepstra 1-12, correlation along time under Spin's draws (median, 10th percentile)")
    for name, values in table.items():
        print(f"  {name:22s} {np.median(values):.3f} {np.quantile(values, 0.1):.3f}")


def _work(pipe, waves: list[Wave]) -> None:
    torch.set_num_threads(1)
    parameters = [draw(utterance_rng(0, 0, str(index))) for index in range(len(waves))]
    padded, lengths = batch(waves)
    while (name := pipe.recv()) is not None:
        start = time.process_time()
        if name == "ours":
            perturb(padded, lengths, parameters)
        else:
            praats(waves, parameters)
        pipe.send(time.process_time() - start)


def speed(waves: list[Wave], rounds: int) -> None:
    """Two processes of one thread, crops of 5 s (what is shorter, repeated), the two methods in turn."""
    crops = [np.resize(wave, 5 * RATE) for wave in waves]
    context = get_context("spawn")
    workers = []
    for half in (crops[::2], crops[1::2]):
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(there, half), daemon=True)
        process.start()
        workers.append((here, process))
    audio = len(crops) * 5.0
    wall: dict[str, list[float]] = {"ours": [], "praat": []}
    busy: dict[str, list[float]] = {"ours": [], "praat": []}
    for turn in range(rounds + 1):
        for name in wall:
            start = time.perf_counter()
            for pipe, _ in workers:
                pipe.send(name)
            cpu = sum(pipe.recv() for pipe, _ in workers)
            if turn > 0:
                wall[name].append(time.perf_counter() - start)
                busy[name].append(cpu)
    for pipe, process in workers:
        pipe.send(None)
        process.join()
    print(f"\nThroughput, two processes of one thread, {audio:.0f} s in 5 s crops, best of {rounds} turns")
    core, why = PERTURB.choose()
    print(f"  ours runs on the {core} core ({why})")
    for name in wall:
        print(
            f"  {name:6s} {audio / min(wall[name]):7.0f} x real time by the clock,"
            f" {2 * audio / min(busy[name]):7.0f} x by CPU time of two cores,"
            f" {1e9 * min(busy[name]) / audio / RATE:6.1f} ns a sample"
        )
    print(
        f"  ratio  {min(wall['praat']) / min(wall['ours']):7.1f} by the clock,"
        f" {min(busy['praat']) / min(busy['ours']):7.1f} by CPU time"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=4.0, help="judge the middle of longer files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("quality", "speed"))
    arguments = parser.parse_args(argv)
    waves = load(arguments.audio, arguments.files)
    print(f"{len(waves)} files, {sum(map(len, waves)) / RATE:.0f} s")
    if arguments.only != "speed":
        longest = round(arguments.seconds * RATE)
        middles = [wave[max(0, len(wave) - longest) // 2 :][:longest] for wave in waves]
        voiced = [wave for wave in middles if median_pitch(wave) > 0]
        print(f"{len(waves) - len(voiced)} files left out of the judgement: no voice in them for Praat")
        show("ours", judge(voiced, ours))
        show("Praat", judge(voiced, praats))
        content(voiced)
    if arguments.only != "quality":
        speed(waves, arguments.rounds)


if __name__ == "__main__":
    main()
