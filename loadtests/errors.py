"""What keeps a load from running.

LoadError
├── BenchError    a benchmark could not be measured
└── DemoError     the demo could not be set up or run to its end
"""


class LoadError(Exception):
    """Base; the text says what to do."""


class BenchError(LoadError):
    """A peer did not start, or did not answer; says which and why."""


class DemoError(LoadError):
    """A step of the demo failed; says which and where its log is."""
