"""What keeps a load from running.

LoadError
└── DemoError     the demo could not be set up or run to its end
"""


class LoadError(Exception):
    """Base; the text says what to do."""


class DemoError(LoadError):
    """A step of the demo failed; says which and where its log is."""
