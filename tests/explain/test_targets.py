import pytest

from explain.plan import choose_target


def choose(target, *, has_student=True, has_teacher=True, labels=(1, None), num_classes=10):
    return choose_target(
        target, has_student=has_student, has_teacher=has_teacher, labels=labels, num_classes=num_classes
    )


def test_default_is_the_teacher_then_the_student_then_none():
    assert choose(None) == "teacher"
    assert choose(None, has_teacher=False) == "student"
    assert choose(None, has_teacher=False, has_student=False) is None


@pytest.mark.parametrize(("target", "chosen"), [("label", "label"), ("student", "student"), ("9", 9), ("0", 0)])
def test_takes_what_is_asked_for(target, chosen):
    assert choose(target) == chosen


@pytest.mark.parametrize(
    ("target", "changed", "message"),
    [
        ("teacher", {"has_teacher": False}, "needs --teacher"),
        ("student", {"has_student": False}, "needs --student"),
        ("label", {"labels": (None, None)}, "no labels"),
        ("10", {}, r"classes: 0\.\.9"),
        ("-1", {}, "unknown target '-1'; targets: teacher, student, label, or a class index"),
        ("top", {}, "unknown target 'top'"),
    ],
)
def test_says_what_is_wrong(target, changed, message):
    with pytest.raises(ValueError, match=message):
        choose(target, **changed)
