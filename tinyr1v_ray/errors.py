"""Every error a user can meet. One base class; each child also is the standard-library error it refines.

The text has three parts, separated by "; ": what was seen, the rule it breaks, the remedy. Each class takes the
finished text as its only argument, so that it survives pickling on its way out of a Ray actor.
The command line prints the text as one line and exits with `exit_code`.
"""

from __future__ import annotations


class TinyR1VError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1
    """Status of the process: 2 where the user's input is at fault (nothing was started), 1 where a run failed."""


class ConfigError(TinyR1VError, ValueError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another one."""

    exit_code = 2


class DataError(TinyR1VError, ValueError):
    """A data file, a column, an item or an image cannot be used."""

    exit_code = 2


class ModelError(TinyR1VError, ValueError):
    """A model folder is incomplete or inconsistent."""

    exit_code = 2


class PlacementError(TinyR1VError, ValueError):
    """The cluster cannot hold what the configuration asks for."""

    exit_code = 2


class RunFolderError(TinyR1VError, FileExistsError):
    """A run or output folder is in the way, or holds something else than was expected."""

    exit_code = 2


class RecordError(TinyR1VError, ValueError):
    """The records of a run are incomplete or contradict each other."""


class CheckpointError(TinyR1VError, OSError):
    """A checkpoint is missing a file, fails its hashes, or could not be written."""

    exit_code = 2


class MergeError(TinyR1VError, ValueError):
    """Checkpoints cannot be merged."""

    exit_code = 2


class MergeInputError(MergeError):
    """Found while merging: what was given cannot be merged, so what is merged of it already is of no use."""


class RolloutError(TinyR1VError, RuntimeError):
    """A rollout engine failed."""


class EngineDiedError(RolloutError):
    """A rollout engine is gone or hangs; its work can be given to a replacement."""


class EngineLostError(RolloutError):
    """A rollout engine died that cannot be replaced alone; the run goes on from its last checkpoint with new ones."""


class RewardError(TinyR1VError, RuntimeError):
    """A scorer failed in a way that is not about one item."""


class AdvantageError(TinyR1VError, ValueError):
    """A custom advantage function failed, or returned what cannot be trained on."""


class LearnerError(TinyR1VError, RuntimeError):
    """A learner rank failed."""


class LearnerDiedError(LearnerError):
    """A learner rank is gone or hangs; the group can start again from a checkpoint."""


class WeightSyncError(TinyR1VError, RuntimeError):
    """Engine and learner do not hold the same weights."""


class DeadlineError(TinyR1VError, TimeoutError):
    """A wait took longer than its deadline; the text names the actor and the call."""
