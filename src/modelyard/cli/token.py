"""`modelyard token`: make, list and revoke the tokens that callers of the server need."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from modelyard._kit.actor import user
from modelyard._kit.errors import UserError, near
from modelyard.cli.output import data, json_line, say, table
from modelyard.cli.project import add_file, add_json, known_stages, open_existing
from modelyard.security.roles import ROLES

if TYPE_CHECKING:
    from modelyard.store import Store

__all__ = ["add", "run"]


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "token",
        help="make, list and revoke the tokens that callers need",
        description="A token names a caller and gives a role: a viewer sees what is served, an analyst also asks for "
        "predictions, an operator also sees the server's counters and unloads and loads models, an admin may "
        "everything. The role holds at every endpoint of the project, or at those (or those stages) that are named "
        "alone. Only a digest of a token is kept. Servers that run know of a change within a second.",
        epilog="example:\n  modelyard token add ana --role analyst\n"
        "  modelyard token add bob --role income=operator --role bikes=viewer\n  modelyard token revoke ana",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=["add", "list", "revoke"], help="what to do")
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="who the token is for")
    parser.add_argument(
        "--role",
        action="append",
        metavar="[ENDPOINT=]ROLE",
        help=f"{', '.join(ROLES)}; with a name before it at that endpoint alone, and then several may be given "
        "(default: analyst)",
    )
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Make, list or revoke."""
    from modelyard._kit.clock import as_text
    from modelyard.records import Draft
    from modelyard.security.tokens import add_token, list_tokens, revoke_token

    actor = user()
    if args.action != "list" and not args.name:
        raise UserError("token-name", f"`token {args.action}` needs a name", hint=f"modelyard token {args.action} NAME")
    if args.action == "list" and args.name:
        raise UserError("cli-value", f"`token list` takes no name: `{args.name}`", hint="modelyard token list")
    with open_existing(args) as store:
        if args.action == "list":
            tokens = list_tokens(store.root)
            if args.json:
                for token in tokens:
                    json_line(
                        {
                            "name": token.name,
                            **_roles(token.role, token.roles),
                            "id": token.id,
                            "created": token.created,
                        }
                    )
            else:
                table(
                    ("name", "role", "id", "made"),
                    [(t.name, _shown(t.role, t.roles), t.id, as_text(t.created)) for t in tokens],
                )
            return 0
        if args.action == "revoke":
            gone = revoke_token(store.root, args.name)
            payload = {"name": gone.name, **_roles(gone.role, gone.roles), "id": gone.id}
            store.ledger.append(Draft(kind="token.revoked", actor=actor, payload=payload))
            say(f"revoked `{gone.name}`; servers refuse it within a second")
            return 0
        role, roles = _asked(args.role or ["analyst"])
        roles, known = _endpoints(args, store, roles)
        text = add_token(store.root, args.name, role, roles=roles)
        _say_unknown(roles, known)
        # The ledger learns who may ask from when on, and nothing that helps to find the token.
        payload = {"name": args.name, **_roles(role, roles), "id": text[5:13]}
        store.ledger.append(Draft(kind="token.added", actor=actor, payload=payload))
        try:
            _show(args, role, roles, text)
        except OSError as error:
            # Nobody has seen it, and nobody ever will.
            revoke_token(store.root, args.name)
            store.ledger.append(Draft(kind="token.revoked", actor=actor, payload=payload))
            if not isinstance(error, BrokenPipeError):
                say(f"`{args.name}` has no token: it could not be shown, so it is revoked")
                raise
            raise UserError(
                "token-unseen",
                f"nobody read the token of `{args.name}`, so it is revoked",
                hint="run the command again, and read what it prints",
            ) from None
    return 0


def _asked(given: list[str]) -> tuple[str, dict[str, str]]:
    """Return the role at every endpoint, and those at some.

    Raises:
        UserError: Two are given where one can hold (`token-role`).
    """
    role, roles = "", dict[str, str]()
    for one in given:
        endpoint, named, what = one.rpartition("=")
        if named and not endpoint:
            hint = f"`--role {what}` holds at every endpoint, `--role NAME={what}` at one"
            raise UserError("token-role", f"`{one}` names no endpoint", hint=hint)
        if endpoint in roles or (not named and role):
            where = f"at `{endpoint}`" if named else "at every endpoint"
            raise UserError("token-role", f"two roles {where}", hint="give one: each allows what those before it do")
        if named:
            roles[endpoint] = what
        else:
            role = what
    return role, roles


def _endpoints(args: argparse.Namespace, store: Store, roles: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the roles with the endpoint of each stage for its name, and the endpoints that there are."""
    known = {one.endpoint for one in store.ledger.aliases()}
    if not set(roles) - known:
        return roles, sorted(known)
    _, stages = known_stages(args, store)
    leads = {stage: endpoint for stage, endpoint in stages if stage not in known}
    return {leads.get(name, name): role for name, role in roles.items()}, sorted({*known, *leads, *leads.values()})


def _say_unknown(roles: dict[str, str], known: list[str]) -> None:
    """Say which endpoints are not there yet: the name may be misspelt."""
    for endpoint in roles:
        if endpoint not in known:
            close = near(endpoint, known)
            say(f"note: no model was promoted as `{endpoint}` yet" + (f"; did you mean `{close[0]}`?" if close else ""))


def _roles(role: str, roles: dict[str, str]) -> dict[str, Any]:
    return {"role": role, **({"roles": roles} if roles else {})}


def _shown(role: str, roles: dict[str, str]) -> str:
    return ", ".join([*([role] if role else []), *(f"{endpoint}={one}" for endpoint, one in roles.items())])


def _show(args: argparse.Namespace, role: str, roles: dict[str, str], text: str) -> None:
    if args.json:
        json_line({"name": args.name, **_roles(role, roles), "token": text})
    else:
        say(f"token of `{args.name}` ({_shown(role, roles)}); it is shown this once:")
        data(text)
    sys.stdout.flush()
