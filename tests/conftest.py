"""What holds for all tests."""

import os

from hypothesis import HealthCheck, settings

# How long an example takes says nothing on a machine that others use too. `make test` draws the same examples each
# time; HYPOTHESIS_PROFILE=search draws others, and more of them.
settings.register_profile("same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
