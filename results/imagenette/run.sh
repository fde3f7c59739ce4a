#!/usr/bin/env bash
# What made the files beside this one. From the project's folder, with the environment active:
#     python -m cluster run -- bash results/imagenette/run.sh
# Every step goes on where it was stopped, so a second start repeats nothing. About seven hours on two cores with bfloat16 units and ten
# minutes on a GPU.
set -euo pipefail
data=${DATA:-../shared/data/imagenette}
run=runs/imagenette
student=$run/student
teacher=torch:runs/lite0/model.pt2
workers=${WORKERS:-2}
per_class=${PER_CLASS:-30}

# The black box: EfficientNet-Lite0, 1000 classes; one engine and precision for every step.
if [ ! -f runs/lite0/model.pt2 ]; then
    python -m distill.teachers.lite runs/lite0
    sed -i 's/engine = "auto"/engine = "openvino"/; s/precision = "auto"/precision = "bfloat16"/' runs/lite0/teacher.toml
fi

# The student follows the black box under masks, mixtures and blur; it sees no label. Ten minutes of a GPU that did other work too.
if [ ! -f $student/student.json ]; then
    python -m distill faithful --data "$data" --teacher $teacher --out $student --depth 18 --input-size 160 160 \
        --epochs 36 --batch-size 64 --lr 0.08 --loader-workers 8 --resume
fi

ask() { # NAME METHOD [OPTIONS]: maps of the first 30 val images of each class
    local name=$1 method=$2
    shift 2
    [ -f "$run/maps/$name/_manifest.json" ] || python -m explain "$method" --data "$data" --per-class "$per_class" \
        --teacher $teacher --out "$run/maps/$name" --num-workers "$workers" "$@"
}
explain() { # NAME METHOD [OPTIONS]: the same for what needs the student
    ask "$@" --student $student
}
games() { # FOLDER "MAPS" [OPTIONS]: both games on the black box
    local folder=$1 maps=$2
    shift 2
    # shellcheck disable=SC2086
    [ -f "$run/$folder/_manifest.json" ] || python -m evaluate games --maps $(printf "$run/maps/%s " $maps) --data "$data" \
        --teacher $teacher --out "$run/$folder" --num-workers "$workers" "$@"
}
main="--step-px 1792" # 29 points, both ends included

# The read-out is learnt from 64 answers to each of 1,000 training images.
if [ ! -f $student/readout.json ]; then
    python -m explain gp_regression --data "$data" --split train --per-class 100 --teacher $teacher --num-samples 64 \
        --out $run/maps/labels --num-workers "$workers"
    python -m explain fit --student $student --maps $run/maps/labels --data "$data"
fi

# No question.
of_student="mal_grad_cam ml_grad_cam matt grad_cam cam grad_cam_pp layer_cam hires_cam integrated_gradients readout"
controls="random centre_gaussian edges"
for method in $of_student $controls; do explain $method $method; done
games scores/no_question "$of_student $controls" $main

# Few questions, with the read-out as prior and without. The first answers of 500 are those of a smaller budget.
for queries in 500 200 100 50; do
    ask gp_$queries gp_regression --num-samples $queries
    explain gp_readout_$queries gp_regression --num-samples $queries --prior readout
done
games scores/few_questions "gp_500 gp_200 gp_100 gp_50 gp_readout_500 gp_readout_200 gp_readout_100 gp_readout_50" $main

# LIME, and RISE as published and centred; all budgets are parts of the largest.
ask lime lime
for masks in 4000 1000; do
    ask rise_$masks rise --num-masks $masks
    ask rise_centred_$masks rise --num-masks $masks --centred
done
games scores/many_questions "lime rise_4000 rise_centred_4000 rise_1000 rise_centred_1000" $main

# KernelSHAP.
ask kernel_shap kernel_shap
games scores/kernel_shap kernel_shap $main

# Other substrates, for what stands at the top and the controls: nothing was chosen by these.
top="gp_500 gp_200 gp_readout_100 gp_readout_50 readout rise_4000 rise_centred_4000 lime mal_grad_cam centre_gaussian random"
games scores_swapped "$top" --per-class 10 --step-px 1792 --deletion-substrate blur --insertion-substrate mean --least-relevant

# Whole patches, and measures that are no games.
games scores_patches "$top" --per-class 10 --patches 14 --points 29 --least-relevant
# shellcheck disable=SC2046
[ -f $run/measures/_manifest.json ] || python -m evaluate measures --measures road mu_fidelity --maps $(printf "$run/maps/%s " $top) \
    --data "$data" --per-class 10 --teacher $teacher --out $run/measures --num-workers "$workers"

# RISE's other masks.
ask rise8_4000 rise --num-cells 8 --keep-probability 0.1
ask rise8_centred_4000 rise --num-cells 8 --keep-probability 0.1 --centred
games scores/other_masks "rise8_4000 rise8_centred_4000" $main

# Is the student faithful where RISE and the games look? It is asked in the black box's place; both are shown the same frames.
explain rise_on_student rise --ask student --num-masks 1000 --precision bfloat16
games scores/rise_on_student rise_on_student $main
[ -f $run/fidelity/_manifest.json ] || python -m evaluate measures --measures fidelity --maps $run/maps/mal_grad_cam $run/maps/readout \
    --num-masks 20 --num-points 5 --student $student --data "$data" --per-class "$per_class" --teacher $teacher --out $run/fidelity \
    --num-workers "$workers"

# One pass for each channel, and three hundred steps of gradients an image.
explain score_cam score_cam
games scores/score_cam score_cam $main
explain mask mask
games scores/mask mask $main

# The ceiling of each game: what a search with 4,000 questions finds for one image of each class.
for game in deletion insertion; do ask oracle_$game oracle --game $game --per-class 1; done
games scores_oracle/oracle "oracle_deletion oracle_insertion" $main
games scores_oracle/maps "gp_500 rise_centred_4000 readout random" --per-class 1 $main

# How far a map moves when its image hardly does.
# shellcheck disable=SC2046
[ -f $run/sensitivity/_manifest.json ] || python -m evaluate measures --measures max_sensitivity --student $student --teacher $teacher \
    --maps $(printf "$run/maps/%s " mal_grad_cam ml_grad_cam matt grad_cam grad_cam_pp layer_cam hires_cam readout) \
    --data "$data" --per-class 10 --out $run/sensitivity --num-workers "$workers"

# Do the maps depend on what the student has learnt? Beside redrawn parameters and a wrong class, a student that was told the answers to
# other images, and a read-out learnt on it.
if [ ! -f $run/shuffled/student.json ]; then
    python -m distill imagenette --data "$data" --teacher $teacher --out $run/shuffled --depth 18 --input-size 160 160 --epochs 4 \
        --batch-size 64 --lr 0.08 --shuffled --resume
fi
[ -f $run/shuffled/readout.json ] || python -m explain fit --student $run/shuffled --maps $run/maps/labels --data "$data"
COLUMNS=160 python -m evaluate sanity --student $student --other-student $run/shuffled --teacher $teacher --data "$data" --per-class 6 \
    --out $run/sanity --methods mal_grad_cam matt ml_grad_cam grad_cam readout --num-workers "$workers" | tee results/imagenette/sanity.txt

# How much of a read-out is the student's? One that was learnt on the student of shuffled answers.
ask readout_shuffled readout --student $run/shuffled
games scores_readouts "readout readout_shuffled mal_grad_cam centre_gaussian" $main

python -m evaluate similarity --student $student --teacher $teacher --data "$data"
named=(--data "$data" --maps $run/maps --student $student) # what the scores name may be opened
report=(python -m evaluate report --no-photographs "${named[@]}")
"${report[@]}" --scores $run/scores/*/ --measures $run/measures $run/fidelity $run/sensitivity --out results/imagenette/report.html \
    --table results/imagenette/methods.md
"${report[@]}" --scores $run/scores/*/ --out $run/against_rise.html --table results/imagenette/against_rise.md --against rise_4000
for other in swapped patches; do
    "${report[@]}" --scores $run/scores_$other --out $run/$other.html --table results/imagenette/$other.md --against rise_4000
done
"${report[@]}" --scores $run/scores_readouts --out $run/readouts.html --table results/imagenette/readouts.md --against readout
"${report[@]}" --scores $run/scores_oracle/*/ --out $run/oracle.html --table results/imagenette/oracle.md --against gp_500
python -m evaluate tables --no-photographs --scores $run/scores/*/ "${named[@]}" --beside imagenette=imagenet \
    --num-images 2 --out results/imagenette/paper
rm results/imagenette/paper/figure6-*.png # two megabytes; the report's gallery shows the same maps
python -c '
import sys, pandas as pd
from evaluate.games.reader import load_results
found = load_results(sys.argv[2:])
pd.concat({game: found.auc(game) for game in found.games}, names=["game"]).round(5).to_csv(sys.argv[1])
' results/imagenette/scores.csv $run/scores/*/
