#!/usr/bin/env bash
# What made the files beside this one. From the project's folder, with the environment active:
#     python -m cluster run -- bash results/imagenette/run.sh
# Every step goes on where it was stopped, so a second start repeats nothing. About eight hours on two cores.
set -euo pipefail
data=${DATA:-../shared/data/imagenette}
run=runs/imagenette
images=$run/val200
teacher=onnx:runs/lite0-int8/model.onnx
results=results/imagenette

# The black box: EfficientNet-Lite0, 1000 classes, 8 bits; one engine and precision for every step and machine.
if [ ! -f runs/lite0-int8/model.onnx ]; then
    python -m distill.teachers.lite runs/lite0-int8 --int8 "$data"
    sed -i 's/engine = "auto"/engine = "openvino"/; s/precision = "auto"/precision = "float32"/' runs/lite0-int8/teacher.toml
fi

# The student.
if [ ! -f $run/student/student.json ]; then
    python -m distill imagenette --data "$data" --teacher $teacher --out $run/student --depth 18 --input-size 112 112 --compile --resume
fi

# 200 val images: the first 20 of each class, which --limit 200 would not give.
for class in "$data"/val/*; do
    mkdir -p "$images/val/$(basename "$class")"
    find "$class" -type f | sort | sed -n 1,20p | xargs cp -ut "$images/val/$(basename "$class")"
done

explain() { # NAME METHOD [OPTIONS]
    local name=$1 method=$2
    shift 2
    python -m explain "$method" --data $images --student $run/student --teacher $teacher --out "$run/maps/$name" --num-workers 2 "$@"
}
games() { # NAME MAPS [OPTIONS]: 57 points a game
    local name=$1 maps=$2
    shift 2
    # shellcheck disable=SC2086
    python -m evaluate games --maps $(printf "$run/maps/%s " $maps) --data $images --teacher $teacher \
        --out "$run/$name" --step-px 896 --num-workers 2 "$@"
}

# Maps of the student, and the controls.
of_student="mal_grad_cam ml_grad_cam matt grad_cam cam grad_cam_pp layer_cam integrated_gradients"
controls="random centre_gaussian edges"
for method in $of_student $controls; do explain $method $method; done
games scores "$of_student $controls"

# Maps of the black box, by asking.
explain lime lime
explain kernel_shap kernel_shap
games scores_superpixels "lime kernel_shap"
explain rise rise
games scores_rise rise
for method in score_cam mask; do explain $method $method; done
games scores_passes "score_cam mask"
explain rise_s8 rise --num-cells 8 --keep-probability 0.1
games scores_rise_s8 rise_s8
