"""All cases of requests, by family."""

from loadtests.fuzz.body_cases import body_cases
from loadtests.fuzz.case import Case
from loadtests.fuzz.head_cases import head_cases


def cases() -> list[Case]:
    return [*body_cases(), *head_cases()]
