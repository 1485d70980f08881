#!/usr/bin/env bash
# Stage II by CTC against aligned phones, at the size that one core trains in minutes: the rows of docs/results.md.
#
#   bash recipes/tiny_rows.sh SPEECH WORK LEXICON
#
# SPEECH: a folder with train_phones.jsonl, dev.jsonl and dev_phones.jsonl. WORK: a folder with the train.jsonl of small.sh.
# LEXICON: CMUdict. Both second stages start from one encoder and hear the same utterances in as many batches; DC-Spin
# follows on each, and on the first stage alone.
# Hardware and time: half an hour of one core of an AMD EPYC (Zen 4), beside other work.
set -euo pipefail
speech=$(realpath "$1")
lexicon=$(realpath "$3")
recipes=$(realpath "$(dirname "$0")")
cd "$2"

# Utterances with phones and a text that CTC does not skip.
[ -e tiny.jsonl ] || python - "$speech/train_phones.jsonl" <<'PYTHON'
import json
import sys
from pathlib import Path

aligned = {json.loads(line)["id"] for line in Path(sys.argv[1]).open(encoding="utf-8")}
rows = [json.loads(line) for line in Path("train.jsonl").open(encoding="utf-8")]
rows = [row for row in rows if row["id"] in aligned and row.get("text") and row["num_samples"] <= 16 * 16000]
for name, part in {"tiny": rows, "tiny-third": rows[::3]}.items():
    Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
PYTHON

train() { # OUTPUT RECIPE DATA OPTIONS...
    [ -e "$1/config.json" ] || spintok train "$recipes/$2.toml" --data "$3.jsonl" --output "$1" "${@:4}"
}
train tiny-1 tiny_1_pretrain train --set loop.precision=bfloat16
train tiny-2-phones tiny_2_phones tiny --init tiny-1 --set loop.precision=bfloat16 \
    --set "labels=$speech/train_phones.jsonl"
train tiny-2-ctc tiny_2_ctc tiny --init tiny-1 --set loop.precision=bfloat16 --set "lexicon=$lexicon" \
    --set unknown_words=guess --set optimizer.steps=1500
for before in tiny-1 tiny-2-phones tiny-2-ctc; do
    train "$before-dc-spin" tiny_3_dc_spin tiny-third --init "$before" --set "name=\"$before-dc-spin\"" \
        --set optimizer.steps=200 --set optimizer.warmup=40 --set loop.check_every=0
done
spintok evaluate tiny-2-phones-dc-spin --against tiny-2-ctc-dc-spin --against tiny-1-dc-spin --data "$speech/dev.jsonl" \
    --alignments "$speech/dev_phones.jsonl" --metrics stats,phones,abx,robustness --utterances 60 --draws 300 \
    --output tiny-rows
