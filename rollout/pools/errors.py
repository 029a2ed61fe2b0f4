"""What can go wrong with a pool.

    PoolError                   any of these; the message says what to do
    ├── TritonMissingError      this machine lacks something that an embedded Triton needs
    ├── PoolStartError          the server did not start, or did not become ready
    └── WrongAnswerError        the server is ready, and does not answer the golden rows as the release says

After any of them nothing of the attempt is left running.
"""


class PoolError(Exception):
    """The root of the tree."""


class TritonMissingError(PoolError):
    """Names what is missing and how to install it."""


class PoolStartError(PoolError):
    """Gives the reason, with what the server's log says."""


class WrongAnswerError(PoolError):
    """Names the output and row that differ."""
