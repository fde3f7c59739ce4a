#!/usr/bin/env bash
# What made budgets.* and against_centred.*: every method that asks, at every budget. From the project's folder, with the environment active:
#     python -m cluster run -- bash results/query_curve/run.sh
# Every step goes on where it was stopped. About two hours on two cores with bfloat16 matrix units.
set -euo pipefail
data=${DATA:-../shared/data/imagenette}
run=runs/query_curve
student=$run/student
teacher=torch:runs/lite0/model.pt2
chosen=(--data "$data" --per-class "${PER_CLASS:-10}" --teacher $teacher --num-workers "${WORKERS:-2}")

if [ ! -f runs/lite0/model.pt2 ]; then python -m distill.teachers.lite runs/lite0; fi

if [ ! -f $student/student.json ]; then
    python -m distill imagenette --data "$data" --teacher $teacher --out $student --resume --depth 18 --input-size 112 112 \
        --batch-size 64 --lr 0.06
fi

maps() { # NAME METHOD [OPTIONS]
    local name=$1 method=$2
    shift 2
    [ -f "$run/maps/$name/_manifest.json" ] || python -m explain "$method" "${chosen[@]}" --out "$run/maps/$name" "$@"
}
games() { # NAME "MAPS": both games on the black box, 29 points
    # shellcheck disable=SC2046,SC2086
    [ -f "$run/scores/$1/_manifest.json" ] || python -m evaluate games --maps $(printf "$run/maps/%s " $2) "${chosen[@]}" \
        --out "$run/scores/$1" --step-px 1792
}

# The largest budget first: the answers of the others are its first ones, and cost no question.
budgets="4000 2000 1000 500 200 100 50"
for method in rise lime kernel_shap gp_regression; do
    option=--num-samples
    if [ $method = rise ]; then option=--num-masks; fi
    made=""
    for questions in $budgets; do
        maps ${method}_$questions $method $option $questions
        made+=" ${method}_$questions"
        if [ $method = rise ]; then
            maps rise_centred_$questions rise --num-masks $questions --centred
            made+=" rise_centred_$questions"
        fi
    done
    games $method "$made"
done
# No question: controls, and maps of a student that was distilled in twenty minutes.
if [ ! -f $student/readout.json ]; then
    python -m explain gp_regression --data "$data" --split train --per-class 100 --teacher $teacher --num-samples 64 --num-workers "${WORKERS:-2}" \
        --out $run/maps/labels
    python -m explain fit --student $student --maps $run/maps/labels --data "$data"
fi
for method in random centre_gaussian edges; do maps $method $method; done
for method in mal_grad_cam grad_cam layer_cam readout; do maps $method $method --student $student; done
games no_question "random centre_gaussian edges mal_grad_cam grad_cam layer_cam readout"

report=(python -m evaluate report --no-photographs --data "$data" --maps $run/maps --student $student
    --scores $run/scores/{no_question,gp_regression,kernel_shap,lime,rise})
"${report[@]}" --out results/query_curve/budgets.html --table results/query_curve/budgets.md --query-plot results/query_curve/budgets.png \
    --against rise_4000
"${report[@]}" --out $run/against_centred.html --table results/query_curve/against_centred.md --against rise_centred_4000
