"""How a black box can fail, told apart by what is to be done; imports no torch, so that any command can catch them."""

from cluster.errors import WorkError

MAX_SHOWN = 500  # characters of what another library says


def one_line(error: BaseException) -> str:
    """Return what an error says on one line, the name of its class before it."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:MAX_SHOWN]}"


class TeacherError(WorkError):
    """The black box gives no class probabilities, whatever it is shown; a job that it belongs to stops."""


class NoReplyError(TeacherError):
    """It gave no answer at all, as when a connection is lost: it is asked again."""

    def __init__(self, message: str, *, wait_s: float = 0.0) -> None:
        """Say what happened, and for how many seconds it asks to be left alone."""
        super().__init__(message)
        self.wait_s = wait_s


class RefusedImageError(TeacherError):
    """It failed on these images and still answers others: they get an error row."""
