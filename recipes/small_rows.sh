#!/usr/bin/env bash
# The rows of docs/results.md: train and evaluate the tokenizers that dc-spin-10m-en is compared with.
#
#   bash recipes/small_rows.sh WORK DEV
#
# WORK: the output folder of `small.sh`. DEV: a folder with dev.jsonl, dev_phones.jsonl and noise/, of speakers that are not in
# the training data. Tokenizers are written to WORK/rows, results to WORK/evaluations. For the tables and the figure:
#
#   python recipes/small_results.py WORK/evaluations/*/evaluation.json --plot codewords.svg > tables.md
#
# When the metrics have changed, measure again; the tokenizers are kept:
#
#   rm WORK/evaluations/*/evaluation.json
#   OMP_NUM_THREADS=2 bash recipes/small_rows.sh WORK DEV
#
# The tokenizers that ship can be measured without WORK (half an hour on two cores):
#
#   for tokenizer in dc-spin-10m-en mfcc-kmeans-100; do
#       spintok evaluate $tokenizer --data DEV/dev.jsonl --alignments DEV/dev_phones.jsonl --noise DEV/noise \
#           --utterances 60 --draws 300 --metrics phones,stats,predictability,abx,speaker,robustness \
#           --output evaluations/$tokenizer-primary
#   done
#
# Hardware and time: two minutes of an H200 for the rows of Spin and for spin-ids. small-ssl-spin-200,
# small-ssl-dc-spin-aux-1024 and the rest took two hours of two CPU cores. Each line was run by itself.
set -euo pipefail
recipes=$(realpath "$(dirname "$0")")
dev=$(realpath "$2")
cd "$1"
mkdir -p rows evaluations

row() { # NAME RECIPE DATA OPTIONS...
    [ -e "rows/$1/config.json" ] || spintok train "$recipes/$2.toml" --data "$3.jsonl" --output "rows/$1" \
        --set "name=\"$1\"" "${@:4}"
}
measure() { # TOKENIZER METRICS [CODEBOOK]
    local output=evaluations/$(basename "$1")-${3:-primary}
    [ -e "$output/evaluation.json" ] || spintok evaluate "$1" --data "$dev/dev.jsonl" \
        --alignments "$dev/dev_phones.jsonl" --noise "$dev/noise" --utterances 60 --draws 300 \
        --metrics "$2" --codebook "${3:-primary}" --output "$output"
}
quick=phones,stats,predictability
full=$quick,abx,speaker,robustness

for K in 50 200 500; do
    row "mfcc-kmeans-$K" mfcc_kmeans_100 seventh --set "kmeans.size=$K"
done
for K in 50 100 200 500; do
    row "small-ssl-kmeans-$K" small_kmeans seventh --init kmeans-ids --set layer=6 --set "kmeans.size=$K"
    row "small-phones-kmeans-$K" small_kmeans seventh --init phones-again --set layer=12 --set "kmeans.size=$K"
    row "small-last-kmeans-$K" small_kmeans seventh --init spin-ids --set layer=12 --set "kmeans.size=$K"
    row "small-ssl-spin-$K" small_4_spin train --init kmeans-ids --set "codebooks.0.size=$K"
done
row small-ssl-dc-spin small_4_dc_spin train --init kmeans-ids
for A in 1024 4096; do
    row "small-ssl-dc-spin-aux-$A" small_4_dc_spin train --init kmeans-ids --set "codebooks.4.size=$A"
done
# SpinHuBERT: a third round of stage I, with the codes of that DC-Spin as labels.
row spin-ids small_2_spin_ids train --init kmeans-ids --set labels=rows/small-ssl-dc-spin
row small-spinhubert-kmeans-100 small_kmeans seventh --init rows/spin-ids --set layer=7
# DC-Spin on that encoder, on a CPU: the frozen layers run once.
[ -e third.jsonl ] || awk 'NR % 3 == 1' train.jsonl > third.jsonl
row small-spinhubert-dc-spin small_4_dc_spin third --init rows/spin-ids --set views.variants=1 --set data.seconds=40 \
    --set data.max_seconds=8 --set data.workers=1 --set optimizer.steps=400

for tokenizer in mfcc-kmeans-100 dc-spin-10m-en rows/small-{ssl,phones,last,spinhubert}-kmeans-100 \
    rows/small-{ssl-spin-100,ssl-dc-spin,spinhubert-dc-spin}; do
    measure "$tokenizer" "$full"
done
for K in 50 200 500; do
    for family in mfcc-kmeans small-ssl-kmeans small-phones-kmeans small-last-kmeans small-ssl-spin; do
        measure "rows/$family-$K" "$full"
    done
    measure dc-spin-10m-en "$full" "units-$K"
    measure rows/small-ssl-dc-spin "$full" "units-$K"
done
for tokenizer in dc-spin-10m-en rows/small-ssl-dc-spin; do
    measure "$tokenizer" phones,stats auxiliary
done
for A in 1024 4096; do
    measure "rows/small-ssl-dc-spin-aux-$A" "$quick"
done
