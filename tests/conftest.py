"""Settings for all tests: no test fails because the machine is slow."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "curve", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.load_profile("curve")
