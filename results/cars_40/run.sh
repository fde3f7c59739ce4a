#!/usr/bin/env bash
# What made the files beside this one. From the project's folder, with the environment active:
#     python -m cluster run -- bash results/cars_40/run.sh
# Every step goes on where it was stopped. About two and a half hours on two cores with bfloat16 matrix units.
set -euo pipefail
data=${DATA:-../shared/data}
run=runs/cars_40

# The paper's chain: Imagenette's student, the black box, the student, Sim N, maps and scores of every method, the tables. `make paper`
# does the same. The students have eighteen layers, and are trained in batches of 64, so that two cores can do it.
small="--depth 18 --input-size 112 112 --batch-size 64 --lr 0.06"
paper=(python -m benchmarks.paper cars_40 --data "$data" --num-masks 2000 --num-samples 500 --step-px 1792 --num-workers 2
    --precision bfloat16)
methods="random centre_gaussian edges mal_grad_cam ml_grad_cam matt cam grad_cam grad_cam_pp layer_cam hires_cam rise gp_regression lime
    kernel_shap integrated_gradients score_cam mask"
# shellcheck disable=SC2086
"${paper[@]}" --distill "$small" --methods $methods

# The same student from scratch.
# shellcheck disable=SC2086
"${paper[@]}" --distill "$small" --out runs/scratch --init none --teacher torch:$run/teacher/model.pt2 --methods random

python -m evaluate report --no-photographs --scores $run/scores/*/ --out results/cars_40/report.html --table results/cars_40/methods.md
python -m evaluate report --no-photographs --scores $run/scores/*/ --out $run/against_rise.html --table results/cars_40/against_rise.md \
    --against rise
python -m evaluate tables --no-photographs --scores $run/scores/*/ --student $run/student --num-images 2 --out results/cars_40/paper
rm -f results/cars_40/paper/figure6-*.png # the report's gallery shows the same maps
