"""Official layouts that are not complete, or broken: what is missing or wrong is named."""

import shutil

import numpy as np
import pytest
from dataset_layouts import MAKERS, annotations, lines, make_cars, write_devkit
from scipy.io import savemat

from distill.data import open_images


@pytest.mark.parametrize(
    ("layout", "split", "path"),
    [
        ("imagenet", "val", "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"),
        ("imagenet", "val", "ILSVRC2012_devkit_t12/data/meta.mat"),
        ("imagenet", "val", "val/ILSVRC2012_val_00000003.JPEG"),
        ("imagenet", "val", "ILSVRC2012_devkit_t12"),
        ("imagenet", "train", "ILSVRC2012_devkit_t12"),
        ("imagenet", "train", "train/n02100735"),
        ("cub", "test", "CUB_200_2011/images.txt"),
        ("cub", "test", "CUB_200_2011/image_class_labels.txt"),
        ("cub", "train", "CUB_200_2011/train_test_split.txt"),
        ("cub", "test", "CUB_200_2011/classes.txt"),
        ("cub", "test", "CUB_200_2011/bounding_boxes.txt"),
        ("cub", "test", "CUB_200_2011/images/002.Laysan_Albatross/Laysan_Albatross_0003.jpg"),
        ("cub", "test", "CUB_200_2011/images"),
        ("cars", "test", "stanford_cars/devkit/cars_meta.mat"),
        ("cars", "train", "stanford_cars/devkit/cars_train_annos.mat"),
        ("cars", "train", "stanford_cars/devkit"),
        ("cars", "test", "stanford_cars/cars_test_annos_withlabels.mat"),
        ("cars", "test", "stanford_cars/cars_test/00005.jpg"),
        ("cars", "train", "stanford_cars/cars_train"),
        ("aircraft", "val", "fgvc-aircraft-2013b/data/variants.txt"),
        ("aircraft", "train", "fgvc-aircraft-2013b/data/images_variant_train.txt"),
        ("aircraft", "val", "fgvc-aircraft-2013b/data/images_box.txt"),
        ("aircraft", "val", "fgvc-aircraft-2013b/data/images/0999944.jpg"),
        ("aircraft", "val", "fgvc-aircraft-2013b/data/images"),
    ],
)
def test_what_is_missing_is_named(tmp_path, layout, split, path):
    root = MAKERS[layout](tmp_path)
    open_images(str(root), split=split)
    gone = root / path
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with pytest.raises(FileNotFoundError, match=rf"not complete: {path}.* is missing"):
        open_images(str(root), split=split)


def test_an_imagenet_without_images_says_so(tmp_path):
    write_devkit(tmp_path / "ILSVRC2012_devkit_t12/data")
    with pytest.raises(FileNotFoundError, match="val"):
        open_images(str(tmp_path))
    lines(tmp_path / "train/n01440764.tar", "an archive inside the archive")
    with pytest.raises(FileNotFoundError, match="train/n01440764 is missing"):
        open_images(str(tmp_path), split="train")


@pytest.mark.parametrize(
    ("layout", "path", "text", "says"),
    [
        ("cub", "CUB_200_2011/images.txt", "1 a.jpg\n1 b.jpg\n", "entry 2"),
        ("cub", "CUB_200_2011/images.txt", "1\n", "entry 1"),
        ("cub", "CUB_200_2011/image_class_labels.txt", "1 1\n", "no line for 2"),
        ("cub", "CUB_200_2011/classes.txt", "1 001.Black_footed_Albatross\n", "class '2'"),
        ("cub", "CUB_200_2011/bounding_boxes.txt", "".join(f"{n} 1 2 3\n" for n in range(1, 25)), "not four numbers"),
        ("cub", "CUB_200_2011/train_test_split.txt", "".join(f"{n} 1\n" for n in range(1, 25)), "no image of the test"),
        ("aircraft", "fgvc-aircraft-2013b/data/variants.txt", "707-320\n", "class '737-200'"),
        ("aircraft", "fgvc-aircraft-2013b/data/variants.txt", "\xff", "not UTF-8"),
        ("imagenet", "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", "1\n9\n3\n3\n", "class '9'"),
        ("imagenet", "ILSVRC2012_devkit_t12/data/meta.mat", "text", "not a MATLAB file"),
        ("cars", "stanford_cars/devkit/cars_meta.mat", "", "not a MATLAB file"),
    ],
)
def test_what_is_broken_is_named(tmp_path, layout, path, text, says):
    root = MAKERS[layout](tmp_path)
    (root / path).write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=says):
        open_images(str(root))


def test_a_mat_file_of_something_else_is_refused(tmp_path):
    root = make_cars(tmp_path)
    shutil.copy(root / "stanford_cars/devkit/cars_meta.mat", root / "stanford_cars/cars_test_annos_withlabels.mat")
    with pytest.raises(ValueError, match="no 'annotations'"):
        open_images(str(root))
    savemat(root / "stanford_cars/cars_test_annos_withlabels.mat", {"annotations": np.zeros(3)})
    with pytest.raises(ValueError, match="no 'annotations' with fname, class, bbox_x1"):
        open_images(str(root))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_mat_file_that_is_cut_off_is_refused(tmp_path, compressed):
    root = make_cars(tmp_path)
    path = root / "stanford_cars/cars_test_annos_withlabels.mat"
    savemat(path, annotations([f"{k:05d}.jpg" for k in range(1, 8)]), do_compression=compressed)
    whole = path.read_bytes()
    open_images(str(root))
    for length in range(0, len(whole) - 7, 5):  # the last element's padding may be missing
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cars_test_annos_withlabels"):
            open_images(str(root))
