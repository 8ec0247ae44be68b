"""`foretaste audit`: show and verify a deployment's audit log."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from foretaste.commands.arguments import parse
from foretaste.errors import ConfigError, DeployError
from foretaste.strict_json import to_json

EXAMPLES = """\
  foretaste audit verify
  foretaste audit head                       keep this line somewhere else
  foretaste audit verify --head 41:9f3c...   also: is it still the log whose head was kept?
  foretaste audit show --newest 20"""


@dataclass(frozen=True)
class AuditArguments:
    """Verify, show, or print the head of a deployment's audit log; verify exits with 1 and names the first bad entry.

    Needs the key of the log: audit.key beside the store, or the environment variable FORETASTE_AUDIT_KEY.
    """

    command: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="verify|show|head")]
    """What to do."""
    config: str = "deploy.toml"
    """The deployment's settings."""
    newest: int = 50
    """show: that many entries."""
    head: Annotated[str | None, tyro.conf.arg(metavar="SEQ:HASH")] = None
    """verify: a head that was kept."""


def run(arguments: list[str]) -> int:
    """Do what is asked for; the exit code is 1 if the log was tampered with."""
    given = parse(AuditArguments, arguments, command="audit", examples=EXAMPLES)
    if given.command not in ("verify", "show", "head"):
        raise ConfigError(f"audit {given.command!r} is no command; accepted: verify, show, head")

    from foretaste.deploy import audit
    from foretaste.deploy.database import reading
    from foretaste.deploy.offline import Offline

    kept = None
    if given.head is not None:
        found = re.fullmatch(r"(\d+):([0-9a-f]{64})", given.head)
        if found is None:
            raise ConfigError("--head takes what `foretaste audit head` printed: SEQ:HASH")
        kept = audit.Head(int(found[1]), found[2])
    with Offline.open(Path(given.config)) as offline, reading(offline.engine) as connection:
        if given.command == "show":
            for one in audit.entries(connection, newest=given.newest):
                print(f"{one.seq:>6}  {one.created[:19]}  {one.actor:<16}  {one.kind}  {to_json(one.payload)}")
            return 0
        try:
            head = audit.verify(connection, offline.key, kept=kept)
        except DeployError as error:
            print(error)
            return 1
    if given.command == "verify":
        print(f"The log is intact: {head.seq} entries.")
    print(f"{head.seq}:{head.hash}")
    return 0
