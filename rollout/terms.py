"""What a change that somebody asks for may be subject to: checked, and noted, in the transaction of the change."""

from typing import Protocol

from sqlalchemy import Connection

from rollout.store.rollouts import StoredRollout


class Terms(Protocol):
    """Both are called in the transaction of the change; whatever they raise undoes it."""

    def before(self, connection: Connection, stored: StoredRollout | None) -> None:
        """Look at the rollout before it is changed; None when it is to be begun."""

    def after(self, connection: Connection, key: int) -> None:
        """The rollout `key` is changed, and the transaction about to end."""


class NoTerms:
    """Changes without conditions."""

    def before(self, connection: Connection, stored: StoredRollout | None) -> None: ...

    def after(self, connection: Connection, key: int) -> None: ...


NO_TERMS = NoTerms()
