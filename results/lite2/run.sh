#!/usr/bin/env bash
# What made the files beside this one: a second black box, on which nothing was tuned. From the project's folder, with the environment
# active, after results/imagenette/run.sh:
#     python -m cluster run -- bash results/lite2/run.sh
# Every step goes on where it was stopped. About three and a half hours on two cores with bfloat16 units.
set -euo pipefail
data=${DATA:-../shared/data/imagenette}
run=runs/imagenette_lite2
student=$run/student
teacher=torch:runs/lite2/model.pt2
workers=${WORKERS:-2}
per_class=${PER_CLASS:-10}

# The black box: EfficientNet-Lite2, 1000 classes, 260 px; one engine and precision for every step.
if [ ! -f runs/lite2/model.pt2 ]; then
    python -m distill.teachers.lite runs/lite2 --version 2
fi
sed -i 's/engine = "auto"/engine = "openvino"/; s/precision = "auto"/precision = "bfloat16"/' runs/lite2/teacher.toml

distil() { # A smaller student than that of results/imagenette: it is trained on two cores.
    [ -f $student/_manifest.json ] || python -m distill faithful --data "$data" --teacher $teacher --out $student --depth 18 \
        --input-size 112 112 --epochs 10 --batch-size 64 --lr 0.08 --loader-workers 1 --resume
}
fit() { # LABELS: the read-out is learnt from 64 answers to each of 1,000 training images
    [ -f $student/readout.json ] || python -m explain fit --student $student --maps "$1"
}
explain() { # NAME METHOD [OPTIONS]: maps of the first val images of each class
    local name=$1 method=$2
    shift 2
    [ -f "$run/maps/$name/_manifest.json" ] || python -m explain "$method" --data "$data" --per-class "$per_class" \
        --teacher $teacher --student $student --out "$run/maps/$name" --num-workers "$workers" "$@"
}
games() { # SCORES TEACHER "MAPS" [OPTIONS]: both games
    local scores=$1 judge=$2 maps=$3
    shift 3
    # shellcheck disable=SC2086
    [ -f "$run/$scores/_manifest.json" ] || python -m evaluate games --maps $maps --data "$data" --teacher "$judge" --out "$run/$scores" \
        --per-class "$per_class" --step-px 1792 --num-workers "$workers" "$@"
}
of() { # FOLDER NAMES: the maps' folders
    # shellcheck disable=SC2086
    printf "$1/maps/%s " $2
}

distil
[ -f $run/maps/labels/_manifest.json ] || python -m explain gp_regression --data "$data" --split train --per-class 100 \
    --teacher $teacher --num-samples 64 --out $run/maps/labels --num-workers "$workers"
fit $run/maps/labels

no_question="mal_grad_cam ml_grad_cam matt grad_cam layer_cam integrated_gradients readout random centre_gaussian edges"
for method in $no_question; do explain $method $method; done
games scores/no_question $teacher "$(of $run "$no_question")"

# Maps made for one black box, on the other. The first one's student is as small as this one, for a better student's maps are better on
# both; with its better one the same is done again.
specific="mal_grad_cam grad_cam readout"
first=runs/imagenette_lite0
first_teacher=torch:runs/lite0/model.pt2
of_first() { run=$first student=$first/student teacher=$first_teacher "$@"; }
of_first distil
of_first fit runs/imagenette/maps/labels
for method in $specific; do of_first explain $method $method; done
games scores_second_on_first $first_teacher "$(of $run "$specific")" --cross-teacher
for first in runs/imagenette_lite0 runs/imagenette; do
    name=$(basename $first)
    games scores_$name $first_teacher "$(of $first "$specific")"
    games scores_${name}_on_second $teacher "$(of $first "$specific")" --cross-teacher
    python -m evaluate specificity --table results/lite2/specificity_$name.md \
        --scores $run/scores_$name $run/scores/no_question $run/scores_${name}_on_second $run/scores_second_on_first
done

for queries in 500 200 100 50; do
    explain gp_$queries gp_regression --num-samples $queries
    explain gp_readout_$queries gp_regression --num-samples $queries --prior readout
done
games scores/few_questions $teacher "$(of $run "gp_500 gp_200 gp_100 gp_50 gp_readout_500 gp_readout_200 gp_readout_100 gp_readout_50")"

# Are maps that were made by asking more their own black box's?
asked="gp_500 gp_50"
games scores_asked $first_teacher "$(of runs/imagenette "$asked")"
games scores_asked_on_second $teacher "$(of runs/imagenette "$asked")" --cross-teacher
games scores_asked_second_on_first $first_teacher "$(of $run "$asked")" --cross-teacher
python -m evaluate specificity --table results/lite2/specificity_asked.md \
    --scores $run/scores_asked $run/scores/few_questions $run/scores_asked_on_second $run/scores_asked_second_on_first

explain rise_4000 rise --num-masks 4000
explain rise_centred_4000 rise --num-masks 4000 --centred
explain rise_1000 rise --num-masks 1000
explain rise_centred_1000 rise --num-masks 1000 --centred
games scores/rise $teacher "$(of $run "rise_4000 rise_centred_4000 rise_1000 rise_centred_1000")"

python -m evaluate similarity --student $student --teacher $teacher --data "$data"
python -m evaluate report --no-photographs --scores $run/scores/*/ --out results/lite2/report.html --table results/lite2/methods.md
python -m evaluate report --no-photographs --scores $run/scores/*/ --out $run/against_rise.html --table results/lite2/against_rise.md \
    --against rise_4000
