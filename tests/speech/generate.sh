#!/usr/bin/env bash
# Make the sample speech of this folder anew: Debian's espeak-ng and flite speak, Python writes 16 kHz FLAC.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
espeak-ng -v en-us -s 150 -p 40 -w "$work/anna_tokens.wav" "Speech becomes tokens, and tokens become speech again."
espeak-ng -v en-gb+f3 -s 165 -p 60 -w "$work/beth_river.wav" "The river runs slowly past the old stone bridge."
espeak-ng -v en-us+m7 -s 140 -p 20 -w "$work/carl_river.wav" "The river runs slowly past the old stone bridge."
espeak-ng -v de+f2 -s 150 -w "$work/dora_morgen.wav" "Guten Morgen, wie geht es Ihnen heute?"
flite -voice slt -t "Nine people waited in the rain for the last bus home." -o "$work/eve_bus.wav"
flite -voice rms -t "Yes." -o "$work/fred_yes.wav"
python3 - "$work" <<'PY'
import pathlib, sys
import soundfile, soxr

for path in sorted(pathlib.Path(sys.argv[1]).glob("*.wav")):
    samples, rate = soundfile.read(path)
    soundfile.write(f"{path.stem}.flac", soxr.resample(samples, rate, 16000) * 0.7, 16000, subtype="PCM_16")
PY
