"""Names of the classes that maps explain: the teacher's own, the data set's, or ImageNet's 1,000."""

from collections.abc import Sequence

from distill.data import ImageSet
from distill.data.layouts.wordnet import NUM_CLASSES as IMAGENET_CLASSES
from distill.data.layouts.wordnet import imagenet_names


def name_classes(images: ImageSet | None, teacher_names: Sequence[str] | None, num_classes: int | None) -> list[str]:
    """List a name for each class of the explained model, as well as it is known.

    Args:
        images: the data set; its class folders name the classes that it knows.
        teacher_names: the teacher's own names (`classes` in `teacher.toml`), which come first.
        num_classes: number of the model's classes; None where no model was given: then the data set's spaces of labels
            tell whether the classes are ImageNet's.

    Returns:
        One name per class; "" where none is known.
    """
    if teacher_names:
        return [str(name) for name in teacher_names]
    if num_classes is None and images is not None:
        num_classes = IMAGENET_CLASSES if IMAGENET_CLASSES in images.label_spaces else len(images.class_names) or None
    if num_classes == IMAGENET_CLASSES:
        return imagenet_names()
    if images is not None and num_classes == len(images.class_names):
        return list(images.class_names)
    return [""] * (num_classes or 0)


def class_title(names: Sequence[str], number: int | None) -> str:
    """Return a class's name, or its number where it has none."""
    if number is None:
        return "no class"
    known = names[number] if 0 <= number < len(names) else ""
    return known or f"class {number}"
