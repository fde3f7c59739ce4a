#!/usr/bin/env bash
# What made the files beside this one; from the project's folder, with the environment active. About five hours on two cores.
set -euo pipefail
data=${DATA:-../shared/data/imagenette}
run=runs/imagenette
teacher=onnx:runs/lite0/model.onnx
results=results/imagenette/rescbam50

# The black box: EfficientNet-Lite0, 1000 classes, run by OpenVINO in bfloat16 on this machine, fixed for every step.
python -m distill.teachers.lite runs/lite0
sed -i 's/engine = "auto"/engine = "openvino"/; s/precision = "auto"/precision = "bfloat16"/' runs/lite0/teacher.toml

# The student; started with --num-workers 1, killed in the second epoch and resumed with two workers.
python -m distill imagenette --data "$data" --teacher $teacher --out $run/student --compile --num-workers 2

# What the paper leaves open in MATT, measured on training images.
python benchmarks/studies/attention_options.py --data "$data" --student $run/student --teacher $teacher --out $results \
    --num-images 24 --step-px 1792

# 300 val images: the first 30 of each class, which --limit 300 would not give.
subset=$run/val300
for class in "$data"/val/*; do
    mkdir -p "$subset/val/$(basename "$class")"
    find "$class" -type f | sort | head -30 | xargs cp -t "$subset/val/$(basename "$class")"
done
methods="mal_grad_cam ml_grad_cam matt grad_cam random centre_gaussian"
for method in $methods; do
    python -m explain $method --data $subset --student $run/student --teacher $teacher --out $run/maps/$method
done
python -m evaluate games --maps $(printf "$run/maps/%s " $methods) --data $subset --teacher $teacher \
    --out $run/scores
for view in centre_crop resize; do
    python -m evaluate similarity --student $run/student --teacher $teacher --data "$data" --view $view
done
python -m evaluate report --scores $run/scores --data "$data" --out $results/report.html --no-photographs --table $results/methods.md
