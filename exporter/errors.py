"""What can go wrong in the exporter.

    ExportError             any of these; the message says what to do
    ├── ConversionError     the model cannot be written as an ONNX graph that every server takes
    ├── ParityError         the ONNX graph answers differently from the model it was made from
    └── RepositoryError     the release cannot be published where it was asked to be

A release that is missing or damaged is a `ReleaseError` (exporter.release), a run a `RunError` (trainer.errors). All
are `ValueError`s: the user's mistake or a damaged file, not ours.
"""


class ExportError(ValueError):
    """The root of the tree."""


class ConversionError(ExportError):
    """Says what in the graph is not as it must be."""


class ParityError(ExportError):
    """Says at which batch size, by how much, and what is allowed."""


class RepositoryError(ExportError):
    """Names the repository or model and what is wrong with it."""
