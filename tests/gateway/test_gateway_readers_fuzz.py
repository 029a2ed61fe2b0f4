"""A short run of the readers' fuzzing; `python -m loadtests.fuzz.readers` runs millions."""

import pytest

from loadtests.fuzz.readers import BATCH, work


@pytest.mark.parametrize("seed", range(1, 4))
def test_heads_and_chunks_are_read_as_llhttp_reads_them(seed: int) -> None:
    assert work(seed) == (BATCH, "")
