#!/usr/bin/env bash
# All stages of the small family, from scratch to the tokenizer that ships; each starts from the output of an earlier one.
#
#   bash recipes/small.sh SPEECH WORK
#
# SPEECH: a folder with the audio, train.jsonl (an utterance per line: id, path, speaker) and train_phones.jsonl (phone
# alignments of some utterances). WORK: the output folder; an interrupted run resumes there.
# Hardware and time, for 7 h of speech: 4 minutes of an H200 with 16 CPU cores for `kmeans-ids`, `phones` and
# `phones-again`, and two hours of two CPU cores for the rest. On two CPU cores alone these three stages would take some eight
# hours: they process 373 h of audio, at 60 times real time.
set -euo pipefail
speech=$(realpath "$1")
recipes=$(realpath "$(dirname "$0")")
mkdir -p "$2"
cd "$2"

# One speaker in eight is held out to choose settings. A seventh of the rest, one hour, is enough for K-means. A GPU
# processes audio at ten thousand times real time, so compressed audio is decoded only once.
[ -e train.jsonl ] || python - "$speech" <<'PYTHON'
import json
import sys
import zlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import soundfile


def decoded(row):
    path = Path("wav", row["path"]).with_suffix(".wav").resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    samples, rate = soundfile.read(folder / row["path"], dtype="int16")
    soundfile.write(path, samples, rate)
    return row | {"path": str(path)}


folder = Path(sys.argv[1])
rows = [json.loads(line) for line in (folder / "train.jsonl").open(encoding="utf-8")]
aligned = {json.loads(line)["id"] for line in (folder / "train_phones.jsonl").open(encoding="utf-8")}
with ProcessPoolExecutor() as pool:
    rows = list(pool.map(decoded, rows, chunksize=32))
held = [row for row in rows if zlib.crc32(row["speaker"].encode()) % 8 == 0]
train = [row for row in rows if row not in held]
parts = {"held": [row for row in held if row["id"] in aligned], "seventh": train[::7], "train": train}
for name, part in parts.items():
    Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
PYTHON

phones=$speech/train_phones.jsonl
train() { # OUTPUT RECIPE DATA OPTIONS...
    [ -e "$1/config.json" ] || spintok train "$recipes/$2.toml" --data "$3.jsonl" --output "$1" "${@:4}"
}

# Stage I: masked prediction of K-means clusters of MFCC, then of K-means clusters of a layer of the encoder.
train mfcc-ids small_1_mfcc train
train labels-kmeans small_kmeans seventh --init mfcc-ids --set layer=6 --set kmeans.size=200 --set kmeans.iterations=30
train kmeans-ids small_2_kmeans_ids train --init mfcc-ids --set labels=labels-kmeans
# Stage II: phones, in two rounds.
train phones small_3_phones train --init kmeans-ids --set "labels=$phones"
train phones-again small_3_phones train --init phones --set "labels=$phones" \
    --set optimizer.steps=600 --set optimizer.learning_rate=7e-4 --set optimizer.warmup=40
# Stage III: DC-Spin, with the phones predicted by stage II; then again, with new codebooks and two more layers that train
# (this was run by two processes of `torchrun` with one core each).
train dc-spin small_4_dc_spin_phones train --init phones-again --set labels.tokenizer=phones-again
train dc-spin-again small_4_dc_spin_phones train --init dc-spin --set labels.tokenizer=phones-again --set train_layers=8 \
    --set data.seconds=32 --set optimizer.steps=650
# Stage I a third time, with the codes of that DC-Spin as labels (SpinHuBERT), and stage III on the resulting encoder.
train spin-ids small_5_spin_ids train --init phones-again --set labels=dc-spin-again
train dc-spin-last small_6_dc_spin_phones train --init spin-ids --set labels.tokenizer=phones-again
spintok save dc-spin-last dc-spin-10m-en --dtype float16 --name dc-spin-10m-en
