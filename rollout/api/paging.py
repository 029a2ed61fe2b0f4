"""Lists that grow, by pages: a cursor is where the next page begins, and means nothing to clients."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel, Field

from rollout.errors import InvalidError

T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    """Part of a list. `next` is the cursor of the part after it, null at the end."""

    items: list[T]
    next: str | None = Field(examples=["cm9sbG91dHM6NDE"])


@dataclass(frozen=True, slots=True)
class Asked:
    limit: int
    cursor: str | None

    def position(self, of: str) -> int | None:
        """The id that the page before ended with. Raises InvalidError for what is no cursor of this list."""
        if self.cursor is None:
            return None
        try:
            kind, _, position = base64.urlsafe_b64decode(self.cursor + "==").decode().partition(":")
            if kind == of and 0 <= int(position) < 1 << 63:
                return int(position)
        except (ValueError, binascii.Error):
            pass
        raise InvalidError("the cursor is not one of this list", "leave it off to begin with the first page")

    def page(self, of: str, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The page, from one entry more than it may have: that one tells whether there is another page."""
        items = list(found[: self.limit])
        is_last = len(found) <= self.limit
        return {"items": items, "next": None if is_last else _cursor(of, items[-1]["id"])}


def _cursor(of: str, position: int) -> str:
    return base64.urlsafe_b64encode(f"{of}:{position}".encode()).decode().rstrip("=")


def asked(
    limit: Annotated[int, Query(ge=1, le=200, description="The most entries of a page.")] = 50,
    cursor: Annotated[str | None, Query(max_length=128, description="`next` of the page before.")] = None,
) -> Asked:
    return Asked(limit, cursor)


Paging = Annotated[Asked, Depends(asked)]
