#!/usr/bin/env bash
# The small family from nothing to the tokenizer that ships: every stage, each from the folder that the one before left.
#
#   bash recipes/small.sh SPEECH WORK
#
# SPEECH: a folder with train.jsonl (one utterance a line: id, path, speaker), the audio, and train_phones.jsonl (phone
# alignments of some utterances). WORK: where everything is written; a run that was stopped goes on from there.
# Hardware and time, for 7 h of speech: 4 minutes of an H200 with 16 CPU cores for `kmeans-ids`, `phones` and
# `phones-again`; two hours of two CPU cores for the rest. Two CPU cores alone would take some eight: 60 times real time,
# 373 h to hear in those three.
set -euo pipefail
speech=$(realpath "$1")
recipes=$(realpath "$(dirname "$0")")
mkdir -p "$2"
cd "$2"

# One speaker in eight is kept out, to choose settings by; a seventh of the rest, one hour, is enough for K-means. A GPU
# hears ten thousand times real time, so compressed audio is decoded once.
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

# Stage I: masked prediction of K-means ids on MFCC, then of K-means ids on a layer of the encoder.
train mfcc-ids small_1_mfcc train
train labels-kmeans small_kmeans seventh --init mfcc-ids --set layer=6 --set kmeans.size=200 --set kmeans.iterations=30
train kmeans-ids small_2_kmeans_ids train --init mfcc-ids --set labels=labels-kmeans
# Stage II: phones, in two rounds.
train phones small_3_phones train --init kmeans-ids --set "labels=$phones"
train phones-again small_3_phones train --init phones --set "labels=$phones" \
    --set optimizer.steps=600 --set optimizer.learning_rate=7e-4 --set optimizer.warmup=40
# Stage III: DC-Spin, with the phones that stage II predicts; again with new codebooks on two more layers (done by
# two processes of `torchrun`, a core each).
train dc-spin small_4_dc_spin_phones train --init phones-again --set labels.tokenizer=phones-again
train dc-spin-again small_4_dc_spin_phones train --init dc-spin --set labels.tokenizer=phones-again --set train_layers=8 \
    --set data.seconds=32 --set optimizer.steps=650
# Stage I a third time, on the codes of that DC-Spin (SpinHuBERT), and stage III on the encoder that they taught.
train spin-ids small_5_spin_ids train --init phones-again --set labels=dc-spin-again
train dc-spin-last small_6_dc_spin_phones train --init spin-ids --set labels.tokenizer=phones-again
spintok save dc-spin-last dc-spin-10m-en --dtype float16 --name dc-spin-10m-en
