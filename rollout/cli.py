"""`sluice releases`, `sluice rollout ...` and `sluice control`: the release engineer's side of the control plane.

Exit codes are `exits.Exit`'s; errors are told on stderr, with --json as one line of JSON.
"""

import contextlib
import getpass
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from rollout.client import DEFAULT_URL, ClientError, ControlClient
from rollout.config import load_settings
from rollout.errors import Code, ControlError
from rollout.exits import OF_CODE, Exit, of_rollout
from rollout.orders import ORDERS
from rollout.plan import PlanError, load_plan, plan_to_json
from rollout.pools.errors import PoolError
from rollout.watch import picture
from rollout.watch import watch as watch_live

Url = Annotated[str, typer.Option("--url", envvar="SLUICE_URL", help="The control plane.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
Reason = Annotated[str, typer.Option("--reason", "--message", "-m", help="Why; it goes into the history.")]
ExpectStage = Annotated[
    int | None, typer.Option("--expect-stage", min=1, help="Only while it is at this stage: you looked at that one.")
]
Which = Annotated[str, typer.Argument(metavar="[ID|MODEL]", help="A rollout's number, or a model for its newest.")]

rollout = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Bring a release onto live traffic by degrees, and watch it."
)
_out, _err = Console(), Console(stderr=True)


@contextlib.contextmanager
def told(as_json: bool = False) -> Iterator[None]:
    """Errors become a line that says what is wrong, and where it is known one that says what to do; see `exits`."""
    try:
        yield
    except KeyboardInterrupt as exc:
        raise typer.Exit(Exit.INTERRUPTED) from exc
    except OSError as exc:
        said = f"{exc.filename or 'a file'} cannot be used ({exc.strerror})"
        _refuse(as_json, said, "choose another folder, or make room", Exit.USAGE)
    except ClientError as exc:
        _refuse(as_json, str(exc), exc.hint, OF_CODE.get(exc.code, Exit.ERROR), exc.code, exc.request_id)
    except ControlError as exc:
        _refuse(as_json, str(exc), exc.hint, Exit.USAGE, exc.code)
    except (PlanError, PoolError) as exc:
        _refuse(as_json, str(exc), "", Exit.USAGE)


def _refuse(as_json: bool, said: str, hint: str, code: Exit, word: str = "", request_id: str = "") -> NoReturn:
    if as_json:
        error = {"code": word or code.name.lower(), "message": said, "next": hint, "request_id": request_id}
        typer.echo(json.dumps(error), err=True)
    else:
        _err.print(f"error: {said}", style="red", markup=False, highlight=False, soft_wrap=True)
        if hint:
            _err.print(hint, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def releases(
    model: Annotated[str | None, typer.Argument(help="Only this model's.")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List the releases of the model repository, and what each does now."""
    with told(as_json), ControlClient(url) as client:
        found = client.releases(model)
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table("release", "run", "made", "accuracy", "now")
    for one in found:
        accuracy = one["metrics"].get("accuracy")
        shown = "" if accuracy is None else f"{accuracy:.4f}"
        table.add_row(one["name"], one["run"], one["created_at"], shown, one["doing"])
    _out.print(table)


@rollout.command()
def start(
    release: Annotated[str, typer.Argument(metavar="MODEL/NUMBER", help="The release to bring in, as in digits/7.")],
    plan: Annotated[
        Path | None, typer.Option("--plan", help="A plan (TOML or JSON); default: the default plan.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it live until it ends.")] = False,
    reason: Reason = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Start a rollout. The first release of a model becomes stable as soon as it is ready.

    Example: sluice rollout start digits/2 --plan plan.toml --watch
    """
    with told(as_json), ControlClient(url) as client:
        model, number = _release(release)
        wanted = {} if plan is None else plan_to_json(load_plan(plan))
        begun = client.begin(model, number, wanted, getpass.getuser(), reason)
        if watch:
            _end(watch_live(client, begun["id"], _out), as_json)
    _show(begun, as_json)


@rollout.command()
def status(which: Which = "", url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show one rollout, or without a number the newest ones."""
    with told(as_json), ControlClient(url) as client:
        if which:
            _show(_find(client, which), as_json)
            return
        found = client.rollouts()
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table("id", "release", "status", "decided by", "requests", "what")
    for one in found:
        decision = one["decision"] or {}
        table.add_row(
            str(one["id"]), f"{one['model']}/{one['release']}", one["status"], decision.get("by", ""),
            f"{one['requests']:,}", one["summary"],
        )  # fmt: skip
    _out.print(table)


@rollout.command()
def watch(which: Which, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show a rollout live until it ends; the exit code tells how. Ctrl-C leaves it going on."""
    with told(as_json), ControlClient(url) as client:
        _end(watch_live(client, _find(client, which)["id"], _err if as_json else _out), as_json)


def _takes(verb: str) -> Callable[..., None]:
    def ordered(
        which: Which, reason: Reason = "", expect_stage: ExpectStage = None, url: Url = DEFAULT_URL,
        as_json: AsJson = False,
    ) -> None:  # fmt: skip
        with told(as_json), ControlClient(url) as client:
            key = _find(client, which)["id"]
            _show(client.order(key, verb, getpass.getuser(), reason, expect_stage=expect_stage), as_json)

    return ordered


for verb, known in ORDERS.items():
    rollout.command(verb, help=known.said)(_takes(verb))


@rollout.command()
def history(which: Which, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show what happened in a rollout: when, by whom and why."""
    with told(as_json), ControlClient(url) as client:
        told_of = client.history(_find(client, which)["id"])
    if as_json:
        typer.echo(json.dumps(told_of))
        return
    table = Table("when", "by", "what", "why")
    for one in told_of:
        when = datetime.fromtimestamp(one["at"], UTC).strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(when, one["author"], one["what"].replace("_", " "), one["reason"])
    _out.print(table)


history_of_all = typer.Typer(no_args_is_help=True, add_completion=False, help="The history of all changes.")


@history_of_all.callback()
def _history() -> None:
    """The history of all changes."""


@history_of_all.command()
def verify(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Read the whole history and check that no entry was changed, left out or put in; exit code 1 when one was.

    Each entry's digest covers the entry and the digest before it. Keep the newest one elsewhere to notice, too, that
    the end was cut off.
    """
    with told(as_json), ControlClient(url) as client:
        found = client.get("/v1/history/check")
        newest = client.get("/v1/history?limit=1")["items"]
    digest = newest[0]["digest"] if newest else ""
    broken = found["first_broken"]
    if as_json:
        typer.echo(json.dumps({**found, "digest": digest}))
    elif broken is None:
        _out.print(f"whole: {found['newest']:,} entries, the newest has the digest {digest}", soft_wrap=True)
    else:
        _err.print(f"entry {broken} does not follow on the one before: it or one before it was changed", style="red")
    raise typer.Exit(Exit.OK if broken is None else Exit.ERROR)


def roll_back(
    model: Annotated[str, typer.Argument(help="Whose traffic goes back to the release before.")],
    reason: Reason = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Give all of a model's traffic to the release before, in one step.

    A rollout under way is ended: the release before is still warm. Otherwise it is started, and takes over once it is
    ready.

    Example: sluice rollback digits --reason "customers complain"
    """
    with told(as_json), ControlClient(url) as client:
        _show(client.roll_back(model, getpass.getuser(), reason), as_json)


def control(
    config: Annotated[Path | None, typer.Option("--config", help="TOML file with a table named control.")] = None,
    home: Annotated[str | None, typer.Option("--home", help="Where state is kept; default .sluice.")] = None,
    repository: Annotated[str | None, typer.Option("--repository", help="The model repository.")] = None,
    listen: Annotated[str | None, typer.Option("--listen", help="HOST:PORT; default 127.0.0.1:8080.")] = None,
) -> None:
    """Run the control plane alone, for gateways that run elsewhere."""
    from rollout.api.app import serve
    from rollout.hosting import host_of

    with told():
        settings = load_settings(config, home=home, repository=repository, listen=listen)
        serve(settings, host_of(settings))


def _release(text: str) -> tuple[str, int]:
    model, _, number = text.rpartition("/")
    if not model or not number.isascii() or not number.isdigit():
        raise ClientError(f"a release is written MODEL/NUMBER, as in digits/7, not {text!r}")
    return model, int(number)


def _find(client: ControlClient, which: str) -> dict[str, Any]:
    if which.isdigit():
        return client.rollout(int(which))
    found = client.rollouts(which, limit=1)
    if not found:
        raise ClientError(
            f"no rollout of {which!r} was ever started", code=Code.NOT_FOUND, hint="`sluice rollout status` lists all"
        )
    return client.rollout(found[0]["id"])


def _show(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found))
    else:
        _out.print(f"rollout {found['id']}", style="dim")
        _out.print(picture(found))


def _end(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found))
    raise typer.Exit(of_rollout(found))
