"""Verbs that say who may see which dashboard."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fairlead.cli.flags import FilePath

if TYPE_CHECKING:
    from fairlead.dashboard.logins.users import User, Users

_users = click.option("--users", "file", type=FilePath, metavar="FILE", help="Who they are.  [default: the setting]")
_password = click.option(
    "--password-file", type=FilePath, metavar="FILE|-", help="Holds the password; - is standard input.  [default: asks]"
)
_name = click.argument("name")
_dashboards = click.argument("dashboards", metavar="[DASHBOARD]...", nargs=-1)


@click.group()
def users() -> None:
    """Say who may log in, and see which dashboards."""


@users.command()
@_name
@_users
@click.option("--admin", is_flag=True, help="Sees all dashboards.")
@click.option("--dashboard", "dashboards", multiple=True, help="That they may see; may be given several times.")
@_password
def add(name: str, file: Path | None, admin: bool, dashboards: tuple[str, ...], password_file: Path | None) -> None:
    """Add a user; the file is made if it is not there."""
    known = _opened(file)
    click.echo(f"added {_told(known.add(name, _secret(password_file), 'admin' if admin else 'viewer', dashboards))}")


@users.command()
@_name
@_users
@_password
def password(name: str, file: Path | None, password_file: Path | None) -> None:
    """Give a user another password, and end their sessions."""
    user = _opened(file).set_password(name, _secret(password_file))
    click.echo(f"{user.name} has another password; former sessions are over")


@users.command()
@_name
@_users
def remove(name: str, file: Path | None) -> None:
    """Remove a user, and end their sessions."""
    click.echo(f"removed {_opened(file).remove(name).name}; their sessions are over")


@users.command()
@_name
@_dashboards
@_users
@click.option("--admin", is_flag=True, help="Let them see all dashboards.")
def grant(name: str, dashboards: tuple[str, ...], file: Path | None, admin: bool) -> None:
    """Let a user see dashboards."""
    known = _opened(file)
    _one_of(dashboards, admin)
    click.echo(_told(known.set_role(name, "admin") if admin else known.grant(name, dashboards)))


@users.command()
@_name
@_dashboards
@_users
@click.option("--admin", is_flag=True, help="Let them see only what is granted to them.")
def revoke(name: str, dashboards: tuple[str, ...], file: Path | None, admin: bool) -> None:
    """Let a user see dashboards no more."""
    known = _opened(file)
    _one_of(dashboards, admin)
    click.echo(_told(known.set_role(name, "viewer") if admin else known.revoke(name, dashboards)))


@users.command("list")
@_users
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def list_users(file: Path | None, as_json: bool) -> None:
    """List the users, and what each may see."""
    import msgspec

    found = _opened(file).list()
    if as_json:
        told = [{"name": user.name, "role": user.role, "dashboards": sorted(user.dashboards)} for user in found]
        click.echo(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())
        return
    for user in found:
        click.echo(_told(user))


def _opened(file: Path | None) -> Users:
    from fairlead import config
    from fairlead.dashboard.logins.users import Users

    named = file or config.read(None, os.environ, {}).dashboard.users
    if named is None:
        raise click.UsageError("expected --users FILE, or the setting dashboard.users")
    return Users(Path(named))


def _secret(file: Path | None) -> str:
    """Read a password, which has no place in a command line that every user of the machine can see."""
    from fairlead.errors import DashboardError

    if file is None:
        return str(click.prompt("password", hide_input=True, confirmation_prompt=True, err=True))
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        raise DashboardError(
            f"{file}: expected a file that holds the password, got: {error.strerror}: name another"
        ) from error
    except UnicodeDecodeError:
        # Without what the error tells, which is a part of the password.
        raise DashboardError(f"{file}: expected a password in UTF-8, got something else: write it anew") from None
    return text.removesuffix("\n").removesuffix("\r")


def _one_of(dashboards: tuple[str, ...], admin: bool) -> None:
    if bool(dashboards) == admin:
        raise click.UsageError("expected the names of dashboards, or --admin")


def _told(user: User) -> str:
    sees = "all" if user.role == "admin" else ", ".join(sorted(user.dashboards)) or "none yet"
    return f"{user.name} ({user.role}: {sees})"
