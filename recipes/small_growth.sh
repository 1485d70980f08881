#!/usr/bin/env bash
# The effect of more speech and of a larger encoder: stage II of the small family on parts of the speech, and at three sizes.
#
#   bash recipes/small_growth.sh WORK PHONES
#
# WORK: the output folder of `small.sh`, with train.jsonl, held.jsonl and the encoders kmeans-ids and phones. PHONES:
# train_phones.jsonl. The runs are written to WORK/growth. For the tables and the figure:
#
#   python recipes/small_growth.py WORK --plot growth.svg
#
# Hardware and time: one hour of one CPU core, and two more for `phones-long`. The published results are those of an encoder
# with 8 layers.
set -euo pipefail
recipes=$(realpath "$(dirname "$0")")
phones=$(realpath "$2")
cd "$1"
mkdir -p growth

# A ninth, a third and all of the utterances that have an alignment, evenly from the list.
[ -e growth/hours-1.jsonl ] || python - "$phones" <<'PYTHON'
import json
import sys
from pathlib import Path

with open(sys.argv[1], encoding="utf-8") as file:
    aligned = {json.loads(line)["id"] for line in file}
lines = Path("train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
lines = [line for line in lines if json.loads(line)["id"] in aligned]
for part in (9, 3, 1):
    Path(f"growth/hours-{part}.jsonl").write_text("".join(lines[::part]), encoding="utf-8")
PYTHON

run() { # OUTPUT DATA OPTIONS...
    [ -e "growth/$1/config.json" ] || spintok train "$recipes/small_3_phones.toml" --data "growth/$2.jsonl" \
        --output "growth/$1" --set "labels=$phones" --set optimizer.steps=1000 --set optimizer.warmup=150 \
        --set data.seconds=16 --set data.max_seconds=8 --set loop.check_every=0 --set data.workers=1 \
        --set second_view_probability=0.5 --set views.snr_min=5.0 --set views.reverb=0.2 \
        --dev held.jsonl --alignments "$phones" --set loop.check_utterances=150 "${@:3}"
}

# Hours of speech, starting from the encoder of stage I.
for part in 9 3 1; do
    run "hours-$part" "hours-$part" --init kmeans-ids
done
# A ninth of the hours with more updates.
run hours-9-again hours-9 --init growth/hours-9 --set optimizer.steps=1500 --set loop.check_every=500
# Many updates, with larger batches.
run phones-long hours-1 --init phones --set optimizer.steps=6500 --set optimizer.warmup=100 --set loop.check_every=1000 \
    --set data.seconds=24 --set data.max_seconds=15 --set second_view_probability=0.6 --set views.snr_min=0.0 --set views.reverb=0.3
# Sizes, from scratch, on all hours.
encoder=(--set encoder.front_end=log_mel --set 'encoder.conv_channels=[64, 256]' --set 'encoder.conv_kernels=[240, 2]'
    --set 'encoder.conv_strides=[160, 2]' --set encoder.norm_position=pre --set encoder.positional_kernel=64
    --set encoder.heads=4)
size() { # LAYERS WIDTH
    run "size-$1x$2" hours-1 "${encoder[@]}" --set "encoder.layers=$1" --set "encoder.width=$2" \
        --set "encoder.feed_forward=$((4 * $2))"
}
size 4 128
size 6 192
size 8 256
