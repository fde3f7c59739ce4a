"""The paper's hyper-parameters and the learning rate over time."""

from dataclasses import replace

import pytest
import torch

from distill.__main__ import main
from distill.training.recipes import FINE_TUNING_RECIPES, RECIPES, Recipe, lr_at


def test_the_papers_recipes_hold_the_papers_figures():
    imagenet = RECIPES["imagenet"][1]
    assert (imagenet.epochs, imagenet.lr, imagenet.momentum, imagenet.weight_decay) == (100, 0.1, 0.9, 1e-4)
    assert (imagenet.depth, imagenet.input_size) == (50, (224, 224))
    assert [round(lr_at(imagenet, e), 6) for e in (0, 29.9, 30, 60, 90)] == [0.1, 0.1, 0.01, 0.001, 0.0001]
    for name in ("cub", "cars", "aircraft-variant", "aircraft-family", "aircraft-manufacturer"):
        fine = RECIPES[name][1]
        assert [round(lr_at(fine, e), 9) for e in (0, 30, 50, 60, 70)] == [1e-2, 1e-3, 1e-4, 1e-5, 1e-6]


def test_steps_are_torchs_multi_step_schedule():
    recipe = Recipe(epochs=8, lr=0.5, lr_epochs=(2, 5))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=list(recipe.lr_epochs))
    for epoch in range(recipe.epochs):
        assert lr_at(recipe, epoch) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


def test_cosine_warms_up_linearly_and_ends_at_zero():
    recipe = Recipe(epochs=10, lr=0.2, schedule="cosine", warmup_epochs=2)
    assert lr_at(recipe, 0) == 0
    assert lr_at(recipe, 1) == pytest.approx(0.1)
    assert lr_at(recipe, 2) == pytest.approx(0.2)
    assert lr_at(recipe, 6) == pytest.approx(0.1)
    assert lr_at(recipe, 10) == pytest.approx(0)


@pytest.mark.parametrize(
    "field", [{"epochs": 0}, {"lr": 0.0}, {"crop_min_scale": 1.5}, {"num_views": -1}, {"input_size": (8, 224)}]
)
def test_figures_out_of_range_are_refused(field):
    with pytest.raises(ValueError, match="allowed"):
        replace(Recipe(), **field)


@pytest.mark.parametrize(
    ("words", "recipes"),
    [(["distill", "flowers"], RECIPES), (["distill", "finetune", "imagenet"], FINE_TUNING_RECIPES)],
)
def test_an_unknown_recipe_is_told_what_there_is(words, recipes, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [*words, "--data", "x", "--out", "y"])
    assert main() == 2
    assert capsys.readouterr().err == f"error: unknown recipe {words[-1]!r}; recipes: {', '.join(recipes)}\n"
