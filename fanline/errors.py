"""The errors that Fanline raises on purpose; anything else that escapes is a defect.

The command line prints the message of a `FanlineError` as one sentence and exits with `exit_code`.
"""


class FanlineError(Exception):
    """An expected failure whose message is one plain sentence for the person who caused or watches it."""

    exit_code = 1


class ConfigurationError(FanlineError):
    """A setting, an argument or a file that Fanline was given cannot be used."""

    exit_code = 2


class DependencyUnavailable(FanlineError):
    """A server that is needed does not answer.

    `dependency` names it where somebody may wait for it: database, redis, kafka, registry, opensearch, ...
    """

    def __init__(self, message: str, dependency: str = "") -> None:
        super().__init__(message)
        self.dependency = dependency


class MalformedEvent(FanlineError):
    """A Kafka record cannot be understood; it belongs in the dead-letter topic with this message as its reason."""


class StaleOffset(FanlineError):
    """The offset to resume from is no longer in Kafka, so records were lost to retention."""


class DeadLetterBrake(FanlineError):
    """Too many records were rejected, in a row or as a share: the flow stops instead of emptying its topic."""


class BarrierTimeout(FanlineError):
    """The pipeline did not pass a known write in time; the message names the stage that lags."""
