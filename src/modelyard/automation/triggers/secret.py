"""Read a secret from where the file says it is; the secret itself stands nowhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from modelyard._kit.errors import Problem, UserError
from modelyard.automation.triggers.signature import key_of
from modelyard.spec import Spec

__all__ = ["read_secret", "shared_secrets"]

_FILE, _ENV = "file:", "env:"


def read_secret(place: str, root: Path) -> str:
    """Return the secret of a variable of the environment, or of a file.

    Args:
        place: Name of the variable, with or without `env:` before it, or `file:PATH` (relative to the project).
        root: Folder of the project.

    Raises:
        UserError: It is not set, or empty, or the file cannot be read (`secret-unset`).
    """
    if place.startswith(_FILE):
        path = root / Path(place.removeprefix(_FILE)).expanduser()
        try:
            found = path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise UserError(
                "secret-unset",
                f"the secret in `{path}` cannot be read: {why}",
                hint="put the secret there, and only it",
            ) from error
    else:
        found = os.environ.get(place.removeprefix(_ENV), "").strip()
    if not found:
        what = f"the file of the secret `{place}` is empty" if place.startswith(_FILE) else f"`{place}` is not set"
        raise UserError("secret-unset", what, hint="put the secret there before `modelyard up`")
    return found


def shared_secrets(spec: Spec) -> Iterator[Problem]:
    """Yield webhooks that have one secret under two names, as far as the secrets can be read here and now."""
    owner: dict[bytes, tuple[str, str]] = {}
    for name, trigger in spec.triggers.items():
        for place in trigger.webhook.secret if trigger.webhook is not None else ():
            try:
                key = key_of(read_secret(place, spec.root))
            except (UserError, ValueError):
                continue
            first, where = owner.setdefault(key, (name, place))
            if first != name:
                yield Problem(
                    "secret-shared",
                    f'`{where}` and `{place}` hold one secret: the webhooks "{first}" and "{name}" each take what is '
                    "signed for the other",
                    spec.where(f"triggers.{name}.webhook.secret"),
                    "give each a secret of its own: `openssl rand -base64 32`",
                )
