"""`foretaste serve`: run a deployment's server until Ctrl-C."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from foretaste.commands.arguments import parse
from foretaste.commands.private_files import private_files
from foretaste.errors import DeployError, ForetasteError

if TYPE_CHECKING:
    from foretaste.deploy.settings import DeployConfig

EXAMPLES = """\
  foretaste deploy init deploy.toml
  foretaste serve deploy.toml
  foretaste serve deploy.toml --port 9000"""


@dataclass(frozen=True)
class ServeArguments:
    """Serve an OpenAI-compatible endpoint: the incumbent answers, the learner learns beside it.

    The first start makes an admin's and a user's key and prints them once. Next: foretaste deploy --help
    """

    config: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[FILE]")] = "deploy.toml"
    """The deployment's settings."""
    host: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    """Listen here in place of server.host."""
    port: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Listen on this port in place of server.port."""
    certfile: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Speak HTTPS with this certificate chain (PEM) in place of server.certfile; needs --keyfile."""
    keyfile: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Its private key (PEM) in place of server.keyfile."""


def run(arguments: list[str]) -> int:
    """Start the server; the exit code is 1 if it could not listen."""
    given = parse(ServeArguments, arguments, command="serve", examples=EXAMPLES)
    try:
        import starlette  # noqa: F401 (a missing extra is told before anything is read)
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ForetasteError(f"Serving needs {error.name}. Install it: pip install 'foretaste[deploy]'") from error
    import dataclasses
    import logging

    from foretaste.deploy import settings
    from foretaste.deploy.kill import block_signal
    from foretaste.deploy.network.open_files import allow_open_files
    from foretaste.deploy.operations.notices import notices

    file = Path(given.config)
    config = settings.load(file)
    files = {
        name: str(Path(value).resolve())
        for name, value in (("certfile", given.certfile), ("keyfile", given.keyfile))
        if value is not None
    }
    listening = {name: value for name, value in (("host", given.host), ("port", given.port)) if value is not None}
    config = dataclasses.replace(config, server=dataclasses.replace(config.server, **listening, **files))
    settings.check(config)
    allow_open_files(2 * config.server.max_connections + config.incumbent.max_connections + 128)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    text = file.read_text(encoding="utf-8")
    for one in notices(config, file.parent.resolve(), text):
        print(f"Note: {one}", file=sys.stderr)
    block_signal()
    with private_files():
        return _serve(config, file)


def _serve(config: DeployConfig, file: Path) -> int:
    import gc

    from foretaste.deploy.deployment import make_first_keys
    from foretaste.deploy.server import App, server_of

    app = App(config, file.parent.resolve(), with_signal=True, file=file.resolve())
    for scope, secret in make_first_keys(app.deployment).items():
        print(f"{scope} key, shown only now: {secret}")
    address = f"{'https' if config.server.certfile else 'http'}://{config.server.host}:{config.server.port}"
    print(f"Serving {config.name} at {address}/v1 (admin page: {address}/admin). Ctrl-C ends it.", flush=True)
    server = server_of(app)
    gc.collect()
    gc.freeze()  # what is loaded now stays: the collector need not walk through it while users wait
    try:
        server.run()
    except KeyboardInterrupt:
        return 0
    except SystemExit as error:  # uvicorn's way to say that it cannot listen
        raise DeployError(f"Cannot listen at {address}; is something else there? Take another --port") from error
    return 0 if server.started else 1
