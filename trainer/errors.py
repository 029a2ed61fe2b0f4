"""What can go wrong in the trainer.

    TrainerError            any of these; the message says what to do
    ├── ConfigError         the configuration is wrong
    ├── DatasetError        the data are missing or not as they should be
    ├── CheckpointError     a checkpoint is damaged, or belongs to another training
    └── RunError            a run folder is missing, unfinished or already in use

All are users' mistakes or damaged files, so they are `ValueError`s; a mistake of ours is an `AssertionError`.
"""


class TrainerError(ValueError):
    """The root of the tree."""


class ConfigError(TrainerError):
    """Names the file, the key and what was expected."""


class DatasetError(TrainerError):
    """Names the source and what was expected of it."""


class CheckpointError(TrainerError):
    """Names the checkpoint and what is wrong with it."""


class RunError(TrainerError):
    """Names the run folder and what to do about it."""
