"""What can go wrong in the gateway, before it serves.

GatewayError
├── ConfigError      a setting is unknown, of the wrong kind or out of range
├── ListenError      an address cannot be listened on
└── SlotsExhaustedError  a route table needs more counters than there are
"""


class GatewayError(Exception):
    """Base of the gateway's errors; the text says what to do."""


class ConfigError(GatewayError, ValueError):
    """A setting that cannot be used."""


class ListenError(GatewayError):
    """An address that is in use or may not be used."""


class SlotsExhaustedError(GatewayError):
    """More (model, release, role) combinations than `counter_slots`."""
