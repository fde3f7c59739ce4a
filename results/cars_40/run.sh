#!/usr/bin/env bash
# What made the files beside this one. From the project's folder, with the environment active:
#     python -m cluster run -- bash results/cars_40/run.sh
# Every step goes on where it was stopped. About three and a half hours on two cores with bfloat16 matrix units.
set -euo pipefail
data=${DATA:-../shared/data}
run=runs/cars_40

# The paper's chain: Imagenette's student, the black box, the student, Sim N, maps and scores of every method, the tables. `make paper`
# does the same. The students have eighteen layers, and are trained in batches of 64, so that two cores can do it.
methods="random centre_gaussian edges mal_grad_cam ml_grad_cam matt cam grad_cam grad_cam_pp layer_cam hires_cam rise gp_regression lime
    kernel_shap integrated_gradients score_cam mask"
small="--depth 18 --input-size 112 112 --batch-size 64"
chain=(python -m benchmarks.paper cars_40 --data "$data" --step-px 1792 --num-workers 2 --precision bfloat16 --distill="$small --lr 0.06")
# shellcheck disable=SC2086
"${chain[@]}" --num-masks 2000 --num-samples 500 --methods $methods

# What the answers that are kept give beside it, for no question more: RISE centred, and fewer of gp_regression's.
images=(--data "$data/stanford_cars_40" --teacher torch:$run/teacher/model.pt2 --num-workers 2)
games() { # NAME "MAPS": both games of maps/MAPS as scores_NAME
    # shellcheck disable=SC2046,SC2086
    python -m evaluate games "${images[@]}" --maps $(printf "$run/maps/%s " $2) --step-px 1792 --out $run/scores_$1
}
if [ ! -f $run/scores_more/_manifest.json ]; then
    python -m explain rise "${images[@]}" --num-masks 2000 --centred --out $run/maps/rise_centred
    for questions in 100 50; do
        python -m explain gp_regression "${images[@]}" --num-samples $questions --out $run/maps/gp_$questions
    done
    games more "rise_centred gp_100 gp_50"
fi

# Two other students: the same from scratch, and one that follows the black box alone, under masks too, in place of the paper's loss.
"${chain[@]}" --out runs/scratch --init none --teacher torch:$run/teacher/model.pt2 --methods mal_grad_cam grad_cam
faithful=$run/faithful
if [ ! -f $faithful/_manifest.json ]; then
    # shellcheck disable=SC2086
    python -m distill cars_40 --data "$data/stanford_cars_40" --teacher torch:$run/teacher/model.pt2 --out $faithful --resume \
        --init runs/imagenette/student $small --lr 0.1 --label-weight 0 --mixup 0.5 --masked-share 0.4 --blurred-share 0.1
fi
if [ ! -f $run/scores_faithful/_manifest.json ]; then
    python -m evaluate similarity --student $faithful --teacher torch:$run/teacher/model.pt2 --data "$data/stanford_cars_40"
    for method in mal_grad_cam grad_cam; do
        python -m explain $method "${images[@]}" --student $faithful --precision bfloat16 --out $run/maps/faithful_$method
    done
    games faithful "faithful_mal_grad_cam faithful_grad_cam"
fi

# The read-out, learnt from 64 answers to each training image on either of the two that started from Imagenette's, and questions that start
# from the one that foretells the maps of training images which were held out better.
for student in $run/student $faithful; do
    if [ ! -f $student/readout.json ]; then
        python -m explain gp_regression "${images[@]}" --split train --num-samples 64 --out $run/maps/labels
        python -m explain fit --student $student --maps $run/maps/labels --data "$data/stanford_cars_40"
    fi
done
student=$faithful # correlation .516; the other's .501
if [ ! -f $run/scores_learnt/_manifest.json ]; then
    python -m explain readout "${images[@]}" --student $student --out $run/maps/readout
    for questions in 200 100 50; do
        python -m explain gp_regression "${images[@]}" --student $student --num-samples $questions --prior readout --out $run/maps/gp_readout_$questions
    done
    games learnt "readout gp_readout_200 gp_readout_100 gp_readout_50"
fi

scores=("$run"/scores/*/)
all=("${scores[@]}" $run/scores_more $run/scores_learnt)
named=(--data "$data/stanford_cars_40" --maps $run/maps runs/scratch/cars_40/maps --student $run/student) # what the scores name may be opened
report=(python -m evaluate report --no-photographs "${named[@]}")
"${report[@]}" --scores "${all[@]}" --out results/cars_40/report.html --table results/cars_40/methods.md
"${report[@]}" --scores "${all[@]}" --out $run/against_rise.html --table results/cars_40/against_rise.md --against rise
"${report[@]}" --scores $run/scores/{mal_grad_cam,grad_cam,centre_gaussian} runs/scratch/cars_40/scores/*/ $run/scores_faithful \
    --out $run/students.html --table results/cars_40/students.md
python -m evaluate tables --no-photographs --scores "${scores[@]}" "${named[@]}" --num-images 2 --out results/cars_40/paper
rm -f results/cars_40/paper/figure6-*.png # the report's gallery shows the same maps
