"""Failures that a user can cause or mend, told in words instead of tracebacks.

Whoever first knows what an error means to the user raises a `Failure` (from the original exception); the command line
prints it and exits. Any other exception that gets that far is a fault of ours and keeps its traceback.
"""


class Failure(Exception):
    """The command cannot go on, and the user can understand why.

    `message` says what failed, on what object, and the cause. `advice` says what to do about it, where we know.
    `exit_code` becomes that of `mirrord-trace`: 1, or what shells use (126 not executable, 127 command not found).
    """

    def __init__(self, message: str, advice: str | None = None, exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice
        self.exit_code = exit_code


class UsageFailure(Failure):
    """The command line or the configuration asks for something that cannot be meant. Exit code 2."""

    def __init__(self, message: str, advice: str | None = None) -> None:
        super().__init__(message, advice, exit_code=2)
