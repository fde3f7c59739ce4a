#!/usr/bin/env bash
# What made the files beside this one: the paper's recipe and `faithful`, as long and of one size. From the project's folder, with the
# environment active:
#     python -m cluster run -- bash results/recipes/run.sh
# Every step goes on where it was stopped. Five minutes of a GPU for each student, and fifteen of two cores.
set -euo pipefail
data=${DATA:-../shared/data/imagenette}
run=runs/recipes
teacher=torch:runs/lite0/model.pt2
workers=${WORKERS:-2}

[ -f runs/lite0/model.pt2 ] || python -m distill.teachers.lite runs/lite0
for recipe in imagenette faithful; do
    student=$run/$recipe
    # ResCBAM-50 at 96 px, 8 epochs of batches of 32: the defaults of both.
    [ -f $student/_manifest.json ] || python -m distill $recipe --data "$data" --teacher $teacher --out $student --loader-workers 4 --resume
    for view in centre_crop resize; do
        python -m evaluate similarity --student $student --teacher $teacher --data "$data" --view $view
    done
    [ -f $run/maps/$recipe/_manifest.json ] || python -m explain mal_grad_cam --data "$data" --per-class 30 --student $student \
        --teacher $teacher --out $run/maps/$recipe --num-workers "$workers"
    [ -f $run/measures/$recipe/_manifest.json ] || python -m evaluate measures --measures fidelity --maps $run/maps/$recipe --data "$data" \
        --per-class 10 --student $student --teacher $teacher --out $run/measures/$recipe --num-workers "$workers"
done
[ -f $run/scores/_manifest.json ] || python -m evaluate games --maps $run/maps/imagenette $run/maps/faithful --data "$data" --teacher $teacher \
    --out $run/scores --step-px 1792 --num-workers "$workers"
python -m evaluate report --no-photographs --data "$data" --scores $run/scores --out $run/report.html --table results/recipes/methods.md --against imagenette
python - $run results/recipes/agreement.csv <<'END'
import json, sys
from pathlib import Path
import numpy as np, pandas as pd
from cluster.storage import Folder
from evaluate.metrics.schema import read_measures
from evaluate.statistics import paired_difference
run, out = sys.argv[1:]
rows, values = [], {}
for recipe in ("imagenette", "faithful"):
    for path in sorted(Path(run, recipe).glob("similarity-*.json")):
        found = json.loads(path.read_text())
        for n in range(1, 6):
            about = found[f"sim{n}"]
            rows.append((f"sim{n}, {found['view']}", recipe, about["mean"], about["low"], about["high"], found["num_images"]))
    table = read_measures(Folder(f"{run}/measures/{recipe}")).to_pandas()
    values[recipe] = table.pivot(index="image_id", columns="measure", values="value")
for measure in values["imagenette"]:
    one, two = (values[recipe][measure].to_numpy() for recipe in ("imagenette", "faithful"))
    for recipe, found in (("imagenette", one), ("faithful", two)):
        rows.append((measure, recipe, np.nanmean(found), None, None, int(np.isfinite(found).sum())))
    both = np.isfinite(one) & np.isfinite(two)
    difference = paired_difference(two[both], one[both])
    rows.append((measure, "difference", difference.mean, difference.low, difference.high, int(both.sum())))
columns = ["figure", "recipe", "mean", "low", "high", "images"]
pd.DataFrame(rows, columns=columns).round(4).to_csv(out, index=False)
print(pd.read_csv(out).to_string())
END
