"""Options of `python -m explain register METHOD`, as the command line shows them. Imports no torch."""

from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

import tyro

from explain.methods.registry import METHODS, Method

Options = TypeVar("Options")


def served(method: Method) -> bool:
    """Tell whether a student and an image are all that the method needs: no black box, and no seed."""
    return method.explains == "student" and not method.seeded


@dataclass(frozen=True, kw_only=True)
class Registration(Generic[Options]):
    """Student with a method, as a model in MLflow's registry: image in, map out."""

    options: Annotated[Options, tyro.conf.arg(name="")]
    """The method's own options."""
    student: str
    """RUN folder of `python -m distill`."""
    name: str
    """The model's name in the registry of MLFLOW_TRACKING_URI; a name that is there gets another version."""

    def check(self, method: Method) -> None:
        """Check that a student alone can serve the method, and that the name is one for a model.

        Raises:
            ValueError: If not.
        """
        if not served(method):
            others = ", ".join(one.name for one in METHODS.values() if served(one))
            raise ValueError(f"method {method.name!r} needs more than a student and an image; these do not: {others}")
        if not self.name.strip() or set(self.name) & set("/:.%\"'"):
            raise ValueError(f"name {self.name!r} is none for a model; give one without / : . % and quotes")
