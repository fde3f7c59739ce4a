#!/usr/bin/env bash
# What made the files beside this one. From the project's folder, with the environment active:
#     python -m cluster run -- bash results/query_curve/run.sh
# Every step goes on where it was stopped, so a second start repeats nothing. Hours on two cores.
set -euo pipefail
data=${DATA:-../shared/data/imagenette}
run=runs/imagenette
student=$run/faithful
teacher=onnx:runs/lite0-int8/model.onnx
workers=${WORKERS:-2}

# The black box: EfficientNet-Lite0, 1000 classes, 8 bits; one engine and precision for every step and machine.
if [ ! -f runs/lite0-int8/model.onnx ]; then
    python -m distill.teachers.lite runs/lite0-int8 --int8 "$data"
    sed -i 's/engine = "auto"/engine = "openvino"/; s/precision = "auto"/precision = "float32"/' runs/lite0-int8/teacher.toml
fi

# The student follows the black box under masks, mixtures and blur; it sees no label.
if [ ! -f $student/student.json ]; then
    python -m distill faithful --data "$data" --teacher $teacher --out $student --depth 18 --input-size 112 112 \
        --compile --epochs 16 --batch-size 64 --lr 0.08 --resume
fi

# Training images: every eighth of each class, 100 at most. Val images: the first 10 of each class.
images() { # SPLIT FOLDER EVERY NUMBER
    for class in "$data"/"$1"/*; do
        mkdir -p "$run/$2/$1/$(basename "$class")"
        find "$class" -type f | sort | awk "NR % $3 == 1 || $3 == 1" | head -"$4" | xargs cp -ut "$run/$2/$1/$(basename "$class")"
    done
}
images train train1000 8 100
images val val100 1 10

explain() { # NAME METHOD DATA [OPTIONS]
    local name=$1 method=$2 images=$3
    shift 3
    python -m explain "$method" --data "$run/$images" --teacher $teacher --out "$run/maps/$name" --num-workers "$workers" "$@"
}

# The read-out is learnt from 64 answers to each training image.
explain labels gp_regression train1000 --split train --num-samples 64
[ -f $student/readout.json ] || python -m explain fit --student $student --maps $run/maps/labels

# No question.
zero="mal_grad_cam ml_grad_cam matt grad_cam cam grad_cam_pp layer_cam hires_cam integrated_gradients readout"
controls="random centre_gaussian edges"
for method in $zero $controls; do explain "$method" "$method" val100 --student $student; done

# Few questions, with the read-out as prior and without. The first answers of 500 are those of a smaller budget.
for queries in 500 200 100 50; do
    explain gp_$queries gp_regression val100 --num-samples $queries
    explain gp_readout_$queries gp_regression val100 --num-samples $queries --student $student --prior readout
done

# Thousands: RISE's two families, as published and centred; all budgets are parts of the largest.
for masks in 4000 1000 500 100; do
    explain rise_$masks rise val100 --num-masks $masks
    explain rise_centred_$masks rise val100 --num-masks $masks --centred
done
explain rise8_4000 rise val100 --num-cells 8 --keep-probability 0.1
explain rise8_centred_4000 rise val100 --num-cells 8 --keep-probability 0.1 --centred
explain lime lime val100
explain kernel_shap kernel_shap val100

# Both games on the black box, 57 points each, and the tables.
scores=()
for maps in $zero $controls gp_{500,200,100,50} gp_readout_{500,200,100,50} rise_{4000,1000,500,100} \
    rise_centred_{4000,1000,500,100} rise8_4000 rise8_centred_4000 lime kernel_shap; do
    python -m evaluate games --maps "$run/maps/$maps" --data $run/val100 --teacher $teacher --out "$run/scores/$maps" \
        --step-px 896 --num-workers "$workers"
    scores+=("$run/scores/$maps")
done
python -m evaluate similarity --student $student --teacher $teacher --data "$data"
python -m evaluate report --scores "${scores[@]}" --out results/query_curve/report.html --table results/query_curve/methods.md
