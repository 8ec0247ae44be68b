"""Find an environment by name and return it ready to play.

| id | what it is |
|---|---|
| `extract`, `foretaste/extract-v1` | an environment of this package, or one given to `register_env` |
| `reasoning/gcd` | a family of reasoning-gym (`reasoning.py`) |
| `dataset:orders.jsonl` | the user's own questions and answers (`dataset.py`) |
| `my_module:MyEnv` | the user's own class: a `TextEnv`, or any `gymnasium.Env` with text spaces |
| `SomeNamespace/Some-v0` | anything else in Gymnasium's registry whose spaces are text |
| `lock?horizon=80&visibility=silent` | any of the above with arguments of its constructor (`parameters.py`) |

Modules are imported when an environment is made, not before. Environments that are no `TextEnv`
come wrapped in `plain.PlainTextEnv`; the `*_of` functions below read either kind.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import gymnasium
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker

from foretaste.envs.base import TextEnv
from foretaste.envs.guarded import Fault, guarded
from foretaste.envs.parameters import arguments_of, split_id
from foretaste.envs.plain import DEFAULT_MAX_TURNS, PlainTextEnv
from foretaste.errors import ConfigError, EnvError, ForetasteError, unknown

BUILT_IN: dict[str, str] = {
    "desk": "foretaste.envs.desk:Desk",
    "extract": "foretaste.envs.extract:Extract",
    "guess": "foretaste.envs.guess:Guess",
    "lock": "foretaste.envs.lock:Lock",
    "maze": "foretaste.envs.maze:Maze",
    "repair": "foretaste.envs.repair:Repair",
    "route": "foretaste.envs.route:Route",
}
"""Short name -> where its class is, imported on first use."""

_PARAMETRIC = {"reasoning": "foretaste.envs.reasoning:make_family", "dataset": "foretaste.envs.dataset:Dataset"}
_NAMESPACE = "foretaste"
_registered: dict[str, type[TextEnv]] = {}

EnvClass = TypeVar("EnvClass", bound=type[TextEnv])


def make(id: str | type[gymnasium.Env[Any, Any]] | gymnasium.Env[Any, Any], *, level: int | None = None) -> Any:
    """Return the environment that `id` names, as a `gymnasium.Env[str, str]`.

    `id` is a name as in the table above, an environment class, or an environment. `level` is the
    difficulty when `reset` names none; environments without levels accept only None and 1.

    Raises: ConfigError for an unknown name or level; EnvError for a class that cannot be imported,
    does not start, or whose observations or actions are not text.
    """
    if not isinstance(id, str):
        return _ready(id if isinstance(id, gymnasium.Env) else _build(id, level, _title(id)), level, _title(id))
    id, given = split_id(id)
    if id in BUILT_IN or id in _registered:
        return _own(id, level, given)
    prefix, _, rest = id.partition("/")
    if prefix == _NAMESPACE and rest.endswith("-v1"):
        name = rest.removesuffix("-v1")
        if name in BUILT_IN or name in _registered:
            return _own(name, level, given)
    if prefix == "reasoning":
        family = load_object(_PARAMETRIC["reasoning"])
        arguments = arguments_of(family, given, id, taken=("name", "family", "level"))
        return _with_spec(family(rest, level=level, **arguments), "reasoning", family=rest, **arguments)
    if id.startswith("dataset:"):
        path, dataset = id.removeprefix("dataset:"), load_object(_PARAMETRIC["dataset"])
        arguments = arguments_of(dataset, given, id, taken=("path", "level"))
        return _with_spec(dataset(path, level=level, **arguments), "dataset", path=path, **arguments)
    if id in gymnasium.registry:
        arguments = arguments_of(load_entry_point(id), given, id)
        env = _made(id, lambda: gymnasium.make(id, disable_env_checker=True, **arguments), (ForetasteError,))
        return _ready(env, level, id)
    if ":" in id:
        found = load_object(id)
        return _ready(_build(found, level, id, arguments_of(found, given, id)), level, id)
    raise ConfigError(unknown("env", id, [*names(), *_known_by_prefix(id)], see="foretaste envs"))


def names() -> list[str]:
    """Return the short names, sorted. reasoning-gym's families: `families()`."""
    return sorted({*BUILT_IN, *_registered})


def families() -> list[str]:
    """Return the ids of all reasoning-gym families, `reasoning/<family>` (imports reasoning-gym: seconds)."""
    return [f"reasoning/{name}" for name in load_object("foretaste.envs.reasoning:families")()]


def register_env(cls: EnvClass) -> EnvClass:
    """Add a `TextEnv` subclass under its `name`, here and as `foretaste/<name>-v1` in Gymnasium's registry.

    Usable as a decorator. Raises: EnvError if the class is no `TextEnv`, has no name, or its name is taken.
    """
    if not (inspect.isclass(cls) and issubclass(cls, TextEnv)):
        raise EnvError(
            f"register_env takes a subclass of TextEnv, not {cls!r}; a plain gymnasium.Env is named module:Class"
        )
    name = cls.name
    if not name or not name.replace("_", "").replace("-", "").isalnum():
        raise EnvError(f"{cls.__name__}.name is {name!r}; give it a short name of letters, digits, '_' or '-'")
    if name in BUILT_IN or _registered.get(name, cls).__qualname__ != cls.__qualname__:
        raise EnvError(f"The name {name!r} of {cls.__name__} is taken; choose another. Taken: {', '.join(names())}")
    _registered[name] = cls
    gymnasium.registry.pop(_gymnasium_id(name), None)
    gymnasium.register(_gymnasium_id(name), entry_point=cast(Any, cls))
    return cls


def instructions_of(env: gymnasium.Env[Any, Any]) -> str:
    """Return what the environment tells the policy to do; "" where it says nothing."""
    instructions = getattr(env.unwrapped, "instructions", "")
    return instructions if isinstance(instructions, str) else ""


def worked_examples_of(env: gymnasium.Env[Any, Any], count: int, level: int) -> list[list[tuple[str, str]]]:
    """Return up to `count` demonstrations, each a list of (observation, action); [] where there are none.

    A plain environment may have a method `worked_examples(count, level)` of its own.
    """
    if count <= 0:
        return []
    examples = getattr(env.unwrapped, "worked_examples", None)
    return cast("list[list[tuple[str, str]]]", examples(count, level)) if callable(examples) else []


def identity_of(env: gymnasium.Env[Any, Any]) -> str | None:
    """Return what makes the item of the last `reset` the one it is; None where its first observation does.

    A plain environment may have a method `identity()` of its own.
    """
    identity = getattr(env.unwrapped, "identity", None)
    found = identity() if callable(identity) else None
    return None if found is None else str(found)


def max_turns_of(env: gymnasium.Env[Any, Any]) -> int:
    """Return the turns that an episode at the environment's current level may take."""
    if isinstance(env, PlainTextEnv):
        return env.max_turns()
    inner = env.unwrapped
    return inner.max_turns() if isinstance(inner, TextEnv) else DEFAULT_MAX_TURNS


# How an id becomes an object -----------------------------------------------------------------


def _own(name: str, level: int | None, given: dict[str, str]) -> TextEnv:
    cls = _registered.get(name) or load_object(BUILT_IN[name])
    arguments = arguments_of(cls, given, name)
    env = _made(name, lambda: cls(level=level, **arguments), (ForetasteError,))
    return _with_spec(env, name, **arguments)


def _made(title: str, create: Callable[[], Any], told: tuple[type[ForetasteError], ...]) -> Any:
    """Return what a constructor makes, with the process as before.

    Raises: EnvError for whatever goes wrong in it, but for errors of the kinds `told`, which go through.
    """
    try:
        return guarded("its constructor", create)
    except Fault as fault:
        if isinstance(fault.__cause__, told):
            raise fault.__cause__ from fault
        said = str(fault).removeprefix("its constructor raised ")
        raise EnvError(f"{title} could not be made: {said}") from fault


def load_entry_point(id: str) -> Any:
    """Return the class or factory behind an id of Gymnasium's registry."""
    entry = gymnasium.spec(id).entry_point
    return load_object(entry) if isinstance(entry, str) else entry


def _with_spec(env: TextEnv, name: str, **arguments: Any) -> TextEnv:
    """Give the environment its entry of Gymnasium's registry, so that Gymnasium's tools can rebuild it."""
    spec = gymnasium.spec(_gymnasium_id(name))
    spec.kwargs = {**spec.kwargs, **arguments, "level": env.default_level}
    env.spec = spec
    return env


def load_object(where: str, what: str = "") -> Any:
    """Import `module:attribute`; the working folder is searched too. `what` says in errors who needs it.

    Raises: EnvError naming what is missing, or what failed while importing.
    """
    module_name, _, attribute = where.partition(":")
    what = what or f"env {where!r}"
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise EnvError(
                f"No module {module_name!r} for {what}; it is looked for in the working folder "
                f"({os.getcwd()}) and among the installed packages"
            ) from error
        raise EnvError(f"Importing {module_name!r} for {what} failed: {error}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a script that ends in sys.exit() is no module
        raise EnvError(f"Importing {module_name!r} for {what} failed: {type(error).__name__}: {error}") from error
    if not attribute or not hasattr(module, attribute):
        own = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise EnvError(unknown(f"name in module {module_name!r} for {what}:", attribute, own))
    return getattr(module, attribute)


def _build(cls: Any, level: int | None, title: str, arguments: dict[str, Any] | None = None) -> gymnasium.Env[Any, Any]:
    """Call a class (or factory) with its arguments, and with `level` if it takes one."""
    arguments = arguments or {}
    if not callable(cls):
        raise EnvError(f"{title} is {type(cls).__name__}, not a class; name a subclass of gymnasium.Env")
    try:
        takes_level = "level" in inspect.signature(cls).parameters
    except (TypeError, ValueError):
        takes_level = False
    if takes_level:
        arguments = {**arguments, "level": level}
    env = _made(title, lambda: cls(**arguments), (ConfigError,))
    if not isinstance(env, gymnasium.Env):
        raise EnvError(
            f"{title} made {type(env).__name__}, which is not a gymnasium.Env; subclass TextEnv or gymnasium.Env"
        )
    return env


def _ready(env: gymnasium.Env[Any, Any], level: int | None, title: str) -> gymnasium.Env[str, str]:
    """Return a `TextEnv` in its own wrappers, and everything else in ours, after checking that its spaces are text.

    Wrappers that Gymnasium's registry puts around a `TextEnv` check the order of calls alone, and are left out.
    """
    inner = env.unwrapped
    if isinstance(inner, TextEnv) and not isinstance(env, PlainTextEnv):
        return _without(env, (OrderEnforcing, PassiveEnvChecker))
    if isinstance(env, PlainTextEnv):
        return env
    if level not in (None, 1) and not hasattr(inner, "levels"):
        raise ConfigError(f"{title} has no levels, so level {level!r} cannot be chosen; leave it at 1")
    return PlainTextEnv(env, title=title)


def _without(env: Any, kinds: tuple[type[Any], ...]) -> gymnasium.Env[Any, Any]:
    """Return an environment without the outermost wrappers of some kinds."""
    while isinstance(env, kinds):
        env = env.env
    return env


def _known_by_prefix(id: str) -> list[str]:
    """Return reasoning families only when a family was likely meant, since listing them takes seconds."""
    return families() if "reasoning" in id.lower() or id.lower().startswith("reason") else []


def _gymnasium_id(name: str) -> str:
    return f"{_NAMESPACE}/{name}-v1"


def _title(cls: Any) -> str:
    kind = cls if inspect.isclass(cls) else type(cls)
    return f"{kind.__module__}:{kind.__qualname__}"


for _name, _where in {**BUILT_IN, **_PARAMETRIC}.items():
    if _gymnasium_id(_name) not in gymnasium.registry:
        gymnasium.register(_gymnasium_id(_name), entry_point=_where)
