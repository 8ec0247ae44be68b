"""`foretaste audit`: show and verify a deployment's audit log."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from foretaste.commands.arguments import parse
from foretaste.commands.private_files import private_files
from foretaste.errors import ConfigError, DeployError
from foretaste.strict_json import to_json

EXAMPLES = """\
  foretaste audit verify
  foretaste audit head                       keep this line somewhere else
  foretaste audit verify --head 41:9f3c...   also: is it still the log whose head was kept?
  foretaste audit repair                     set state and keys back to what the log says; keep heads anew
  foretaste audit show --newest 20"""


COMMANDS = ("verify", "show", "head", "repair")


@dataclass(frozen=True)
class AuditArguments:
    """Verify, show, repair, or print the head of a deployment's audit log; verify exits with 1 and names what is wrong.

    It holds state, keys, judgements and the number of rows against the log, and the log against the heads that were
    kept in audit.heads. repair is for a person who knows what happened, say that a copy was restored.
    Needs the key of the log: audit.key beside the store, or the environment variable FORETASTE_AUDIT_KEY.
    """

    command: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="verify|show|head|repair")]
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
    if given.command not in COMMANDS:
        raise ConfigError(f"audit {given.command!r} is no command; accepted: {', '.join(COMMANDS)}")

    from foretaste.deploy import audit
    from foretaste.deploy.database import reading
    from foretaste.deploy.integrity import checks
    from foretaste.deploy.integrity.opening import repair
    from foretaste.deploy.offline import Offline

    kept = None
    if given.head is not None:
        found = re.fullmatch(r"(\d+):([0-9a-f]{64})", given.head)
        if found is None:
            raise ConfigError("--head takes what `foretaste audit head` printed: SEQ:HASH")
        kept = audit.Head(int(found[1]), found[2])
    with private_files(), Offline.open(Path(given.config), check=False) as offline:
        if given.command == "repair":
            done = repair(offline.opened, offline.actor)
            print("\n".join(done) or "Nothing to repair: state, keys and kept heads are what the log says.")
            return 0
        with reading(offline.engine) as connection:
            if given.command == "show":
                for one in audit.entries(connection, newest=given.newest):
                    print(f"{one.seq:>6}  {one.created[:19]}  {one.actor:<16}  {one.kind}  {to_json(one.payload)}")
                return 0
            heads = offline.opened.heads
            try:
                if given.command == "head":
                    head, found, kept_heads = audit.read_chain(connection, offline.key).head, [], []
                else:
                    kept_heads = heads.read()
                    head = audit.read_chain(connection, offline.key).head
                    wanted = [*kept_heads, *([] if kept is None else [kept])]
                    found = checks.differences(connection, offline.key, wanted)
            except DeployError as error:
                print(error)
                return 1
    if found:
        print("\n".join(f"Changed outside the log: {one}" for one in found))
        print("Restore a copy, or set state and keys back to what the log says: foretaste audit repair")
        return 1
    if given.command == "verify":
        print(f"The log is intact: {head.seq} entries.")
        print(_kept_words(len(kept_heads), heads.folder))
    print(f"{head.seq}:{head.hash}")
    return 0


def _kept_words(count: int, folder: Path | None) -> str:
    if folder is None:
        return "No heads are kept (audit.heads): whether its end was cut off cannot be seen. Compare with --head."
    if count == 0:
        return f"No head was kept in {folder} yet: whether its end was cut off cannot be seen. Compare with --head."
    return f"It holds all {count} heads that were kept in {folder}."
