"""Queries that a job will send to a teacher: stated before it starts, and refused where they are more than allowed.

Counted is the whole job, whatever an earlier start has sent already, but neither queries that are sent again for
want of a reply nor those that check the teacher when it is loaded: one image in each process, and one batch more where
a machine sees the model for the first time.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distill.teachers.base import Teacher


@dataclass(frozen=True, kw_only=True)
class Share:
    """One part of what a job asks."""

    what: str
    """What for, such as a method's name."""
    each: int
    """Queries for one of them, at most."""
    number: int
    """How many there are."""
    unit: str = "images"
    """Of what."""

    @property
    def queries(self) -> int:
        """Count them all."""
        return self.each * self.number


def check_budget(teacher: Teacher, shares: Sequence[Share], max_queries: int | None) -> None:
    """Say on stderr what a job will ask, where queries cost something or are limited.

    Raises:
        ValueError: that is more than `max_queries`.
    """
    total = sum(share.queries for share in shares)
    parts = ", ".join(f"{one.what} {one.each:,} for each of {one.number:,} {one.unit}" for one in shares if one.queries)
    cost = f"at most {total:,} queries to {teacher.spec}{f' ({parts})' if parts else ''}"
    if max_queries is not None and total > max_queries:
        raise ValueError(
            f"this job may cost {cost}, more than --max-queries {max_queries:,}; allow as many, or take fewer images "
            "(--limit) or a smaller budget of the method"
        )
    if teacher.costs_queries or max_queries is not None:
        print(f"{cost}; beside them, each process that loads it sends one to check it", file=sys.stderr)
    if teacher.num_ranked is not None:
        print(_partly(teacher), file=sys.stderr)


def _partly(teacher: Teacher) -> str:
    if teacher.output == "labels":
        return f"{teacher.spec} names a class and no more: it counts as probability 1, every other one as 0"
    return (
        f"{teacher.spec} names {teacher.num_ranked} classes and no more: what their probabilities leave is spread "
        "evenly over the others"
    )
