"""What can go wrong, told in one sentence and one exit code each."""

from signal import SIGUSR1


class StecError(Exception):
    """Base of the errors that a command line prints as one sentence, without a traceback."""

    exit_code = 1
    shared = False
    """Raised alike on all ranks: it is enough if the first one prints it."""


class UsageError(StecError):
    """A wrong name, type, range, path or combination given by the user."""

    exit_code = 2


def at_least(least: int, where: str, **values: int) -> None:
    """UsageError for the first of these options, whose YAML keys are `where`.NAME, that is smaller."""
    for name, value in values.items():
        if value < least:
            raise UsageError(f"{where}.{name}={value} must be at least {least}.")


class NonFinite(StecError):
    """The loss is not a finite number any more."""

    exit_code = 3


class DataError(StecError):
    """Data that cannot be read: a damaged shard or sample, or too many of them."""

    exit_code = 4


class Unavailable(StecError):
    """Data that lies elsewhere and cannot be had now. Not a damaged sample: nothing stands in for it."""

    exit_code = 4


class Interrupted(StecError):
    """A signal asked the run to end; it did so in good order, with a checkpoint. SIGUSR1 is no failure: by it a
    scheduler asks to make room."""

    shared = True

    def __init__(self, sentence: str, signal: int):
        super().__init__(sentence)
        self.exit_code = 0 if signal == SIGUSR1 else 128 + signal
