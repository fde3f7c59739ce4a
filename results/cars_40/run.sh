#!/usr/bin/env bash
# What made the files beside this one. From the project's folder, with the environment active:
#     python -m cluster run -- bash results/cars_40/run.sh
# Every step goes on where it was stopped. About two and a half hours on two cores with bfloat16 matrix units.
set -euo pipefail
data=${DATA:-../shared/data}
run=runs/cars_40

# The paper's chain: Imagenette's student, the black box, the student, Sim N, maps and scores of every method, the tables. `make paper`
# does the same. The students have eighteen layers, and are trained in batches of 64, so that two cores can do it.
methods="random centre_gaussian edges mal_grad_cam ml_grad_cam matt cam grad_cam grad_cam_pp layer_cam hires_cam rise gp_regression lime
    kernel_shap integrated_gradients score_cam mask"
# shellcheck disable=SC2086
python -m benchmarks.paper cars_40 --data "$data" --num-masks 2000 --num-samples 500 --step-px 1792 --num-workers 2 --precision bfloat16 \
    --distill="--depth 18 --input-size 112 112 --batch-size 64 --lr 0.06" --methods $methods

# What the answers that are kept give beside it, for no question more: RISE centred, and fewer of gp_regression's.
images=(--data "$data/stanford_cars_40" --teacher torch:$run/teacher/model.pt2 --num-workers 2)
more="rise_centred gp_100 gp_50"
if [ ! -f $run/scores_more/_manifest.json ]; then
    python -m explain rise "${images[@]}" --num-masks 2000 --centred --out $run/maps/rise_centred
    for questions in 100 50; do
        python -m explain gp_regression "${images[@]}" --num-samples $questions --out $run/maps/gp_$questions
    done
    # shellcheck disable=SC2046
    python -m evaluate games "${images[@]}" --maps $(printf "$run/maps/%s " $more) --step-px 1792 --out $run/scores_more
fi

scores=("$run"/scores/*/)
report="python -m evaluate report --no-photographs"
$report --scores "${scores[@]}" $run/scores_more --out results/cars_40/report.html --table results/cars_40/methods.md
$report --scores "${scores[@]}" $run/scores_more --out $run/against_rise.html --table results/cars_40/against_rise.md --against rise
python -m evaluate tables --no-photographs --scores "${scores[@]}" --student $run/student --num-images 2 --out results/cars_40/paper
rm -f results/cars_40/paper/figure6-*.png # the report's gallery shows the same maps
