"""The response cache: nothing queried twice, shared by workers, and checked when it is read."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from box_teacher import Box
from inference_client import LOAD_QUERIES, Server, some_images

from cluster.errors import WorkError
from distill.teachers import TeacherError, load_teacher
from distill.teachers.http.response_cache import ResponseCache

LABELS = {"output": "labels", "num_classes": 3}


def test_a_query_is_sent_once_by_anybody(server: Server, tmp_path: Path) -> None:
    spec = server.spec(tmp_path)
    images = some_images(6)
    first = load_teacher(spec).probabilities(np.concatenate([images, images[:3]]))
    assert server.get("queries") == LOAD_QUERIES + 6, "those that check it, and each image once"
    server.set(queries=0)
    again = load_teacher(spec)
    assert (server.get("queries"), again.num_load_queries) == (1, 1), "a known model shows one response again"
    np.testing.assert_array_equal(again.probabilities(images[::-1]), first[:6][::-1])
    np.testing.assert_array_equal(again.probabilities(images[2:3]), first[2:3])
    assert server.get("queries") == 1
    again.probabilities(some_images(7, seed=4))
    assert server.get("queries") == 1 + 7
    other = load_teacher(server.spec(tmp_path, "other"))
    other.probabilities(images)
    assert server.get("queries") == 1 + 7 + LOAD_QUERIES + 6, "another model's responses are its own"


def test_an_answer_is_of_its_description_and_identity(server: Server, tmp_path: Path) -> None:
    fields = [{}, {"mean": [0.5, 0.5, 0.5]}, {"identity": "a"}, {"identity": "b"}, {"classes": ["a", "b", "c"]}]
    assert len({load_teacher(server.spec(tmp_path, **one)).fingerprint for one in fields}) == len(fields)
    moved = [load_teacher(server.spec(tmp_path, name, identity="a")).fingerprint for name in ("probs", "other")]
    assert moved[0] == moved[1], "a model with a name is the same wherever it is served"
    how = [{}, {"batch_size": 4}, {"timeout_s": 5.0}, {"transfer": "json"}, {"keep_answers": False}]
    assert len({load_teacher(server.spec(tmp_path, **one)).fingerprint for one in how}) == 1


def test_answers_are_not_kept_where_that_is_not_wished(server: Server, tmp_path: Path) -> None:
    teacher = load_teacher(server.spec(tmp_path, keep_answers=False))
    for _ in range(2):
        teacher.probabilities(some_images(3))
    assert server.get("queries") == LOAD_QUERIES + 6
    assert not (tmp_path / "cache" / "answers").exists()


def test_a_broken_store_ends_the_work_and_is_no_images_fault(server: Server, tmp_path: Path) -> None:
    spec = server.spec(tmp_path)
    fingerprint = load_teacher(spec).fingerprint
    path = tmp_path / "cache" / "answers" / f"{fingerprint}.sqlite"
    for file in path.parent.iterdir():
        file.unlink()
    path.write_bytes(b"no database" * 100)
    with pytest.raises(WorkError, match=r"answers cannot be kept in .*sqlite: file is not a database"):
        load_teacher(spec)


def test_workers_share_one_store(tmp_path: Path) -> None:
    mine, other = (ResponseCache("abc", lambda scores: len(scores) == 3) for _ in range(2))
    rows = np.random.default_rng(0).random((600, 3)).astype(np.float32)
    asked: list[int] = []

    def ask(places: list[int]) -> np.ndarray:
        asked.extend(places)
        return rows[places]

    np.testing.assert_array_equal(mine.get_or_query(rows, ask), rows)
    np.testing.assert_array_equal(other.get_or_query(rows[::-1], ask), rows[::-1])
    assert asked == list(range(600))
    with sqlite3.connect(mine.path) as connection:
        assert connection.execute("SELECT COUNT(*) FROM answers").fetchone() == (600,)
    connection.close()


@pytest.mark.parametrize(
    "blob", [b"", b"abc", b"\0" * 12, b"\xff" * 12, np.array([0.2, 0.3, 0.6], np.float32).tobytes()]
)
def test_what_cannot_be_a_response_is_queried_again(server: Server, tmp_path: Path, blob: bytes) -> None:
    spec, images = server.spec(tmp_path), some_images(2)
    teacher = load_teacher(spec)
    wanted = teacher.probabilities(images)
    path = tmp_path / "cache" / "answers" / f"{teacher.fingerprint}.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE answers SET probs = ?", (blob,))
    connection.close()
    server.set(queries=0)
    for _ in range(2):
        np.testing.assert_array_equal(load_teacher(spec).probabilities(images), wanted)
    assert server.get("queries") == 2 * 1 + 2, "each image once more, and then it is known again"


def test_an_error_is_kept_by_nobody(server: Server, tmp_path: Path) -> None:
    teacher = load_teacher(server.spec(tmp_path))
    for fault in ("nan", "more classes", "400"):
        server.set(fault=fault, times=10**6)
        with pytest.raises(TeacherError):
            teacher.probabilities(some_images(2))
    server.set(fault="", times=0)
    np.testing.assert_allclose(teacher.probabilities(some_images(2)), Box(6.0)(some_images(2)), atol=1e-6)


@pytest.mark.parametrize("fields", [{}, {"keep_answers": False}, LABELS])
def test_another_model_behind_the_same_url_is_another_teacher(
    server: Server, tmp_path: Path, fields: dict, caplog: pytest.LogCaptureFixture
) -> None:
    spec = server.spec(tmp_path, "label" if fields is LABELS else "probs", **fields)
    first = load_teacher(spec)
    old = first.probabilities(some_images(40))
    assert not caplog.text
    server.set(scale=-3.0)
    with pytest.raises(WorkError, match=f"this job started with {first.fingerprint}"):
        load_teacher(spec, expected_fingerprint=first.fingerprint)
    second = load_teacher(spec)
    assert "taken for another model" in caplog.text
    assert second.fingerprint not in (first.fingerprint, "")
    new = second.probabilities(some_images(40))
    assert not np.array_equal(new, old)
    expected = Box(-3.0)(some_images(40))
    np.testing.assert_array_equal(new.argmax(axis=1), expected.argmax(axis=1))
    assert load_teacher(spec, expected_fingerprint=second.fingerprint).fingerprint == second.fingerprint
    server.set(scale=6.0)
    assert load_teacher(spec).fingerprint == first.fingerprint, "the first model again"
    np.testing.assert_array_equal(load_teacher(spec).probabilities(some_images(40)), old)


def test_a_machine_that_has_seen_no_model_takes_the_jobs_fingerprint(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = server.spec(tmp_path)
    load_teacher(spec)
    server.set(scale=2.0)
    job = load_teacher(spec).fingerprint
    monkeypatch.setenv("MALGRADCAM_CACHE", str(tmp_path / "elsewhere"))
    for _ in range(2):
        assert load_teacher(spec, expected_fingerprint=job).fingerprint == job
    server.set(scale=6.0)
    with pytest.raises(WorkError, match="changed since"):
        load_teacher(spec, expected_fingerprint=job)
    with pytest.raises(WorkError, match="changed since"):
        load_teacher(server.spec(tmp_path, mean=[0.1, 0.1, 0.1]), expected_fingerprint=job)
