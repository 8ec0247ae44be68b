"""`foretaste deploy`: what a person does to a deployment, on its store directly, so that no server need answer."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from foretaste.commands.arguments import parse
from foretaste.commands.private_files import private_files
from foretaste.errors import ConfigError, unknown

if TYPE_CHECKING:
    from foretaste.deploy.offline import Offline

EXAMPLES = """\
  foretaste deploy init                      write a commented deploy.toml
  foretaste deploy check                     settings that have no effect or cannot work; exit code 1 if there are any
  foretaste deploy status
  foretaste deploy promote                   one step on; hold and release stop and start the automatic ones
  foretaste deploy rollback
  foretaste deploy kill                      the learner is out at once; --lift lets it in again
  foretaste deploy cap share_ceiling 0.2     caps and permissions
  foretaste deploy learn                     what learning on the job does; --resume after an alarm, --pause
  foretaste deploy try runs/x/checkpoint     have a checkpoint tried in shadow
  foretaste deploy key create alice          user key; --scope admin or person
  foretaste deploy key list
  foretaste deploy export out.jsonl
  foretaste deploy forget alice              delete all that the keys of this name, or with this id, sent and got
  foretaste deploy compact                   give the free space of an SQLite store back; no server may run
  foretaste deploy plan                      what would be promised, and how soon a change is noticed
  foretaste deploy simulate                  a whole deployment in a simulated world, in minutes"""

ACTIONS = ("hold", "release", "promote", "rollback")
MORE = ("check", "forget", "compact", "plan", "simulate")
COMMANDS = ("init", "status", *ACTIONS, "kill", "learn", "cap", "try", "key", "export", *MORE)


@dataclass(frozen=True)
class DeployArguments:
    """Set up and steer a deployment: init, check, status, promote, hold, release, rollback, kill, learn, cap, try ...

    Everything but init works on the store, so it takes effect within a second where a server runs, and at the next
    start where none does. Every change is in the audit log, with your name: foretaste audit show
    """

    words: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="COMMAND ...")] = ()
    """What to do, as in the examples."""
    config: str = "deploy.toml"
    """The deployment's settings."""
    scope: str = "user"
    """key create: user, person or admin."""
    lift: bool = False
    """kill: let the learner in again."""
    resume: bool = False
    """learn: continue after an alarm or a pause, from the best kept weights."""
    pause: bool = False
    """learn: stop until somebody resumes it; what is served stays."""


def run(arguments: list[str]) -> int:
    """Do what is asked for; the exit code is 1 if a kill could not be recorded (it works all the same)."""
    if arguments[:1] == ["simulate"]:
        from foretaste.commands import deploy_simulate

        deploy_simulate.run(arguments[1:])
        return 0
    if arguments[:1] == ["plan"]:
        from foretaste.commands import deploy_plan

        deploy_plan.run(arguments[1:])
        return 0
    given = parse(DeployArguments, arguments, command="deploy", examples=EXAMPLES)
    if not given.words:
        raise ConfigError(f"Say what to do: {', '.join(COMMANDS)}. See: foretaste deploy --help")
    command, words = given.words[0], given.words[1:]
    if command not in COMMANDS:
        raise ConfigError(unknown("command", f"deploy {command}", [f"deploy {one}" for one in COMMANDS]))
    if command == "init":
        return _init(Path(_words(words, 0, 1, "init [PATH]")[0] if words else given.config))
    from foretaste.deploy.offline import Offline

    if command == "kill":
        _words(words, 0, 0, "kill [--lift]")
        return _kill(given)
    if command == "check":
        return _check(Path(_words(words, 0, 1, "check [FILE]")[0] if words else given.config))
    with private_files(), Offline.open(Path(given.config), check=command not in ("status", "export")) as offline:
        return _COMMANDS[command](offline, words, given) or 0


def _init(path: Path) -> int:
    from importlib import resources

    if path.is_dir():
        path = path / "deploy.toml"
    if path.exists():
        raise ConfigError(f"{str(path)!r} is there already; nothing was changed. Name another file")
    path.parent.mkdir(parents=True, exist_ok=True)
    text = (resources.files("foretaste.deploy") / "template.toml").read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    print(f"{path}\nEdit incumbent.url and learner.checkpoint, then: foretaste serve {path}")
    return 0


def _kill(given: DeployArguments) -> int:
    """Pull the switch by file and signal first, which need no store; then write it down."""
    from foretaste.deploy import kill
    from foretaste.errors import DeployError

    path = Path(given.config)
    if not given.lift:
        print(kill.pull(path), flush=True)
    from foretaste.deploy.offline import Offline

    try:
        with private_files(), Offline.open(path) as opened:
            if given.lift:
                found = opened.lift()
                print("Lifted: the learner is let in again." + (f" At the switch's name was {found}." if found else ""))
            else:
                opened.act("kill")
    except DeployError as error:
        if given.lift:
            raise
        print(f"The learner is out, but the audit log could not be written: {error}", file=sys.stderr)
        return 1
    return 0


def _check(path: Path) -> int:
    """Print what there is to know about the settings; the exit code is 1 if there is anything."""
    from foretaste.deploy import settings
    from foretaste.deploy.operations.notices import notices

    config = settings.load(path)
    found = notices(config, path.parent.resolve(), path.read_text(encoding="utf-8"))
    print("\n".join(map(str, found)) or f"{path}: every setting can work, and the incumbent answers.")
    return 1 if found else 0


def _forget(offline: Offline, words: tuple[str, ...], _: DeployArguments) -> None:
    found = offline.forget(_words(words, 1, 1, "forget KEY-OR-OWNER")[0])
    gone = found.deleted
    print(
        f"Deleted of {', '.join(f'{one.name} ({one.id})' for one in found.keys)}: {gone.requests} requests, "
        f"{gone.answers} answers, {gone.feedback} feedbacks. The audit log holds a digest of them, and the key's name."
    )
    if found.checkpoints:
        names = ", ".join(one[:12] for one in found.checkpoints)
        print(f"Weights that were trained since the first of them may hold what was said: {names}.")
    print("Copies of the store, exports and old_tasks.file are not touched. A server that runs may yet write requests")
    print("that it had begun, and the keys still work: foretaste deploy key revoke ID, then forget once more.")


def _compact(offline: Offline, words: tuple[str, ...], _: DeployArguments) -> None:
    _words(words, 0, 0, "compact")
    before, after = offline.compact()
    print(f"{before / 1e6:.1f} -> {after / 1e6:.1f} MB; from now on retention gives space back by itself")


def _status(offline: Offline, words: tuple[str, ...], _: DeployArguments) -> None:
    _words(words, 0, 0, "status")
    print("\n".join(offline.status()))


def _act(offline: Offline, words: tuple[str, ...], given: DeployArguments) -> None:
    _words(words, 0, 0, given.words[0])
    state = offline.act(given.words[0])
    held = ", held" if state.held else ""
    print(f"{state.stage}, share {state.share:.0%}{held}")


def _learn(offline: Offline, words: tuple[str, ...], given: DeployArguments) -> None:
    _words(words, 0, 0, "learn [--resume | --pause]")
    if given.resume and given.pause:
        raise ConfigError("Accepted: foretaste deploy learn --resume, or --pause; not both")
    if given.resume or given.pause:
        offline.act("resume_learning" if given.resume else "pause_learning")
    print("\n".join(offline.learning()))


def _cap(offline: Offline, words: tuple[str, ...], _: DeployArguments) -> None:
    name, value = _words(words, 2, 2, "cap NAME VALUE")
    print(f"{name} = {offline.cap(name, value)}")


def _try(offline: Offline, words: tuple[str, ...], _: DeployArguments) -> None:
    path = _words(words, 1, 1, "try FOLDER")[0]
    print(f"{offline.try_checkpoint(Path(path))[:12]} is tried in shadow as soon as a server has loaded it")
    if offline.config.learner.checkpoint is None and offline.config.learner.scripted is None:
        print("No learner is configured, so no server will load it: set learner.checkpoint first.", file=sys.stderr)


def _key(offline: Offline, words: tuple[str, ...], given: DeployArguments) -> None:
    usage = "key create NAME [--scope SCOPE] | key list | key revoke ID"
    action = _words(words, 1, 2, usage)[0]
    if action == "list":
        for key in offline.all_keys():
            print(f"{key.id}  {key.scope:<6}  {'revoked' if key.revoked else 'valid':<7}  {key.name}")
    elif action == "create" and len(words) == 2:
        key, secret = offline.create_key(words[1], given.scope)
        print(f"{key.scope} key {key.id} for {key.name}, shown only now:\n{secret}")
    elif action == "revoke" and len(words) == 2:
        print(f"revoked the {offline.revoke_key(words[1]).scope} key {words[1]}")
    else:
        raise ConfigError(f"Accepted: foretaste deploy {usage}")


def _export(offline: Offline, words: tuple[str, ...], _: DeployArguments) -> None:
    path = Path(_words(words, 1, 1, "export FILE.jsonl")[0])
    print(f"{path}: {offline.export(path)} requests")


def _words(words: tuple[str, ...], least: int, most: int, usage: str) -> tuple[str, ...]:
    if not least <= len(words) <= most:
        raise ConfigError(f"Accepted: foretaste deploy {usage}")
    return words


_COMMANDS: dict[str, Any] = {
    "status": _status,
    **dict.fromkeys(ACTIONS, _act),
    "learn": _learn,
    "cap": _cap,
    "try": _try,
    "key": _key,
    "export": _export,
    "forget": _forget,
    "compact": _compact,
}
