"""Progress: few lines in a log, a bar on a terminal, and a rate that counts this run's work alone."""

import io

import pytest

from cluster.progress import bar as progress
from cluster.progress.bar import Progress


class Clock:
    """Stand in for `time`, at a time that the test sets."""

    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    """Be a terminal that remembers what was written."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Put a clock under the test's control in place of `time`."""
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_log_gets_a_line_every_half_minute_and_one_at_the_end(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress("explain", 100, stream=stream) as shown:
        for _ in range(100):
            clock.now_s += 1
            shown.advance(1)
    lines = stream.getvalue().splitlines()
    assert lines == [
        "explain: 30/100 images, 1 images/s, 0:01:10 left",
        "explain: 60/100 images, 1 images/s, 0:00:40 left",
        "explain: 90/100 images, 1 images/s, 0:00:10 left",
        "explain: 100/100 images, 1 images/s, took 0:01:40",
    ]


def test_what_stood_before_does_not_count_towards_the_rate(clock: Clock) -> None:
    with Progress("explain", 100, done=60, stream=io.StringIO()) as shown:
        assert shown.left_s is None
        clock.now_s = 10.0
        shown.advance(20)
        assert shown.rate == pytest.approx(2.0)
        assert shown.left_s == pytest.approx(10.0)


def test_slow_units_are_shown_by_their_time_and_values_stay(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress("distil", 4, unit="steps", stream=stream) as shown:
        clock.now_s = 20.0
        shown.advance(1, loss=0.123456)
        clock.now_s = 40.0
        shown.advance(1)
    assert stream.getvalue().splitlines() == [
        "distil: 2/4 steps, 20 s each, 0:00:40 left, loss 0.1235",
        "distil: 2/4 steps, 20 s each, 0:00:40 left, loss 0.1235",
    ]


def test_units_that_come_in_lumps_minutes_apart_keep_their_rate(clock: Clock) -> None:
    rates = []
    with Progress("explain", 1000, stream=io.StringIO()) as shown:
        for second in range(1, 3001):
            clock.now_s = float(second)
            shown.advance(80 if second % 300 == 0 else 0)
            rates.append(shown.rate)
    assert all(80 / 2 / 300 <= rate <= 80 * 2 / 300 for rate in rates[300:])


def test_nothing_to_do_is_said(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress("explain", 0, stream=stream):
        pass
    assert stream.getvalue() == "explain: 0/0 images, took 0:00:00\n"


def test_a_terminal_gets_a_bar() -> None:
    stream = Terminal()
    with Progress("explain", 3, stream=stream) as shown:
        shown.advance(3, errors=1)
    assert "explain" in stream.getvalue()
    assert "3/3" in stream.getvalue()
    assert "errors 1" in stream.getvalue()
