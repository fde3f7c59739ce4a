#!/usr/bin/env bash
# What made the files beside this one. From the project's folder, with the environment active:
#     python -m cluster run -- bash results/cars_40/run.sh
# Every step goes on where it was stopped. About two and a half hours on two cores with bfloat16 matrix units.
set -euo pipefail
data=${DATA:-../shared/data}
cars=$data/stanford_cars_40
run=runs/cars_40
student=$run/student
teacher=torch:$run/teacher/model.pt2
main="--step-px 1792" # 29 points, both ends included

# The paper's chain: the black box, the student, Sim N, and maps and scores of every method. As `make paper` has it; the student is of
# eighteen layers, and both trainings of it are in batches of 64, so that two cores can do it.
paper=(python -m benchmarks.paper cars_40 --data "$data" --num-masks 2000 $main --precision bfloat16
    --distill "--depth 18 --input-size 112 112 --batch-size 64 --lr 0.06")
"${paper[@]}"

games() { # NAME "MAPS": both games on the black box
    # shellcheck disable=SC2046,SC2086
    [ -f "$run/scores/$1/_manifest.json" ] || python -m evaluate games --maps $(printf "$run/maps/%s " $2) --data "$cars" \
        --teacher $teacher --out "$run/scores/$1" $main
}
ask() { # NAME METHOD [OPTIONS]: maps of all test images
    local name=$1 method=$2
    shift 2
    [ -f "$run/maps/$name/_manifest.json" ] || python -m explain "$method" --data "$cars" --teacher $teacher --out "$run/maps/$name" "$@"
}

# The read-out, learnt from 64 answers to each of the training images; nothing is tuned on these cars.
if [ ! -f $student/readout.json ]; then
    python -m explain gp_regression --data "$cars" --split train --teacher $teacher --num-samples 64 --out $run/maps/labels
    python -m explain fit --student $student --maps $run/maps/labels
fi
ask readout readout --student $student
games readout readout

# Few questions, with the read-out as prior and without. The first answers of 500 are those of a smaller budget.
for queries in 500 200 100 50; do
    ask gp_$queries gp_regression --num-samples $queries
    ask gp_readout_$queries gp_regression --num-samples $queries --prior readout --student $student
done
games few_questions "gp_500 gp_200 gp_100 gp_50 gp_readout_500 gp_readout_200 gp_readout_100 gp_readout_50"

# RISE's own answers, centred, and the first 1,000 of them.
ask rise_centred rise --num-masks 2000 --centred
ask rise_1000 rise --num-masks 1000
ask rise_8_centred rise --num-masks 2000 --num-cells 8 --keep-probability 0.1 --centred
games more_rise "rise_centred rise_1000 rise_8_centred"

[ -f $run/fidelity/_manifest.json ] || python -m evaluate measures --measures fidelity --maps $run/maps/mal_grad_cam $run/maps/readout \
    --num-masks 20 --num-points 5 --student $student --data "$cars" --teacher $teacher --out $run/fidelity

report="python -m evaluate report --no-photographs"
$report --scores $run/scores/*/ --measures $run/fidelity --out results/cars_40/report.html --table results/cars_40/methods.md
$report --scores $run/scores/*/ --out $run/against_rise.html --table results/cars_40/against_rise.md --against rise
# shellcheck disable=SC2046
python -m evaluate tables --no-photographs --scores $(printf "$run/scores/%s " $(ls $run/maps | grep -vE '^(targets|answers|labels|readout|gp_|rise_centred|rise_1000|rise_8_c)')) \
    --student $student --num-images 2 --out results/cars_40/paper
rm -f results/cars_40/paper/figure6-*.png # the report's gallery shows the same maps
