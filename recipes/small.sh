#!/usr/bin/env bash
# The small family from nothing to the tokenizer that ships: every stage, each from the folder that the one before left.
#
#   bash recipes/small.sh SPEECH WORK
#
# SPEECH: a folder with train.jsonl (one utterance a line: id, path, speaker), the audio, and train_phones.jsonl (phone
# alignments of some utterances). WORK: where everything is written; a run that was stopped goes on from there.
# Hardware and time: two CPU cores, three and a half hours for 7 h of speech.
set -euo pipefail
speech=$(realpath "$1")
recipes=$(realpath "$(dirname "$0")")
mkdir -p "$2"
cd "$2"

# One speaker in eight is kept out, to choose settings by; every third utterance is enough for codebooks.
[ -e train.jsonl ] || python - "$speech" <<'PYTHON'
import json
import sys
import zlib
from pathlib import Path

folder = Path(sys.argv[1])
rows = [json.loads(line) for line in (folder / "train.jsonl").open(encoding="utf-8")]
aligned = {json.loads(line)["id"] for line in (folder / "train_phones.jsonl").open(encoding="utf-8")}
rows = [row | {"path": str(folder / row["path"])} for row in rows]
held = [row for row in rows if zlib.crc32(row["speaker"].encode()) % 8 == 0]
train = [row for row in rows if row not in held]
parts = {"held": [row for row in held if row["id"] in aligned], "third": train[::3], "train": train}
for name, part in parts.items():
    Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
PYTHON

phones=$speech/train_phones.jsonl
check=(--dev held.jsonl --alignments "$phones" --set loop.check_utterances=150)
train() { # OUTPUT RECIPE DATA OPTIONS...
    [ -e "$1/config.json" ] || spintok train "$recipes/$2.toml" --data "$3.jsonl" --output "$1" "${@:4}"
}

# Stage I: masked prediction of K-means ids on MFCC, then on a layer of the encoder.
train mfcc-ids small_1_mfcc train "${check[@]}"
train labels-kmeans small_kmeans third --init mfcc-ids --set layer=5 --set kmeans.size=200 --set kmeans.iterations=30
train kmeans-ids small_2_kmeans_ids train --init mfcc-ids --set labels=labels-kmeans "${check[@]}"
# Stage II: phones, in three rounds.
train phones small_3_phones train --init kmeans-ids --set "labels=$phones" "${check[@]}"
train phones-again small_3_phones train --init phones --set "labels=$phones" "${check[@]}" \
    --set optimizer.steps=1500 --set optimizer.learning_rate=7e-4 --set optimizer.warmup=50
train phones-long small_3_phones train --init phones-again --set "labels=$phones" "${check[@]}" \
    --set optimizer.steps=6500 --set optimizer.warmup=100 --set disguised=0.6 --set views.snr_min=0 \
    --set views.reverb=0.3 --set data.max_seconds=15
# Stage III: DC-Spin, with the phones that this encoder predicts.
train dc-spin small_4_dc_spin_phones train --init phones-long --set labels.tokenizer=phones-long "${check[@]}"
spintok save dc-spin dc-spin-7m-en --dtype float16 --name dc-spin-7m-en
