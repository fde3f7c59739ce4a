#!/usr/bin/env bash
# What made the tables of this folder: planted shortcuts, and what EfficientNet-Lite0 relies on. From the project's folder, with the
# environment active:
#     python -m cluster run -- bash results/insights/run.sh
# Every step goes on where it was stopped. About an hour on two cores.
set -euo pipefail
data=${DATA:-../shared/data/imagenette}
run=runs/insights
teacher=torch:runs/lite0/model.pt2

# Further methods: --maps "gp_regression 50" "gp_regression 200" "rise 500" "lime 200" "mal_grad_cam 0"
python -m benchmarks.studies.planted_shortcuts --data "$data" --work $run --out results/insights --seeds ${SEEDS:-0 1 2}

if [ ! -f runs/lite0/model.pt2 ]; then python -m distill.teachers.lite runs/lite0; fi
same=(--data "$data" --split val --teacher $teacher)
[ -f $run/maps/lite0/_manifest.json ] || python -m explain gp_regression "${same[@]}" --num-samples 100 --map-cells 28 --out $run/maps/lite0
python -m evaluate insights --maps $run/maps/lite0 --data "$data" --teacher $teacher --out $run/audits/lite0
for kind in md csv; do cp $run/audits/lite0/suspicions.$kind results/insights/imagenette.$kind; done
cp $run/audits/lite0/classes.png results/insights/imagenette_classes.png
