"""Every setting of a deployment: what a person writes into deploy.toml, and nothing that changes while it runs.

Stage, share, threshold, caps and permissions are not here: they are state, kept in the store and changed only by
audited events (`state.py`). [stages] and [caps] hold the first values of the caps and the rules of promotion.
`template.toml` is the commented file that `foretaste deploy init` writes. Next: `server.py` for what is built of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from foretaste.config import load_recipe
from foretaste.deploy.kill import KILL_FILE
from foretaste.deploy.network.addresses import check_incumbent, check_server
from foretaste.deploy.stage_config import FIRST_LOOK, StageConfig
from foretaste.deploy.training.alarm_config import AlarmConfig
from foretaste.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where the server listens, and what it accepts."""

    host: str = "127.0.0.1"
    port: int = 8088
    max_body_bytes: int = 4 << 20
    """A larger request is refused with 413."""
    max_connections: int = 1024
    """When so many are open, the oldest one that has shown no valid key makes place for a new one."""
    max_connections_per_address: int = 256
    """A further one is refused with 503; 0: no limit, for a proxy in front from whose address all of them come."""
    max_line_bytes: int = 8192
    """A request with a longer first line is refused with 414."""
    max_header_bytes: int = 32_768
    """A request with larger headers is refused with 431."""
    max_headers: int = 100
    """A request with more headers is refused with 431."""
    header_timeout_seconds: float = 10.0
    """A connection that has not sent its whole request head by then is closed."""
    body_timeout_seconds: float = 30.0
    """A request whose body has not arrived by then is refused with 408."""
    request_timeout_seconds: float = 900.0
    """A request whose answer is not whole by then is ended: with 504, or its connection is closed."""
    shutdown_seconds: float = 60.0
    """How long running answers may go on after SIGTERM, Ctrl-C or SIGHUP without a readable file of settings."""
    certfile: str | None = None
    """Certificate chain (PEM) beside the configuration: the server then speaks HTTPS. SIGHUP reads it again."""
    keyfile: str | None = None
    """Its private key (PEM)."""
    cors_origins: tuple[str, ...] = ()
    """Origins such as https://chat.example.org whose pages may call the API from a browser; "*": all."""
    requests_per_minute: int = 6000
    """Of one key; a tenth of it may come at once."""
    kill_file: str = KILL_FILE
    """While this file exists beside the configuration the learner is out of everything."""


@dataclass(frozen=True, slots=True)
class IncumbentConfig:
    """Who answers until the learner may: an OpenAI-compatible endpoint, or people."""

    kind: Literal["openai", "person"] = "openai"
    url: str = "http://127.0.0.1:8000/v1"
    """Base URL, /v1 included where the endpoint has it; a query such as ?api-version=2024-10-21 goes with every
    request."""
    models: tuple[str, ...] = ()
    """Names of models that the learner stands in for: it answers no request for another one. Empty: those that the
    endpoint lists at /models; with `model` all, since it replaces every name."""
    model: str | None = None
    """Sent instead of the model that the client names; None forwards the client's bytes unchanged."""
    api_key_env: str | None = None
    """Environment variable that holds the endpoint's key; the clients' keys are never sent on."""
    api_key_header: str = "authorization"
    """Header that takes it; another one than authorization, such as Azure's api-key, gets it without "Bearer"."""
    connect_timeout_seconds: float = 5.0
    read_timeout_seconds: float = 120.0
    """Longest silence between two pieces of an answer."""
    answer_timeout_seconds: float = 600.0
    """Longest time from a request to the end of its answer."""
    wait_seconds: float = 10.0
    """How long a request waits for one of `max_connections`; then it gets 503 with Retry-After."""
    attempts: int = 2
    """Tries of one request while the endpoint has not begun to answer."""
    max_connections: int = 256
    person_timeout_seconds: float = 600.0
    """How long a question waits for a person."""


@dataclass(frozen=True, slots=True)
class LearnerConfig:
    """Who learns: a checkpoint in a process of its own, or a scripted learner for trials."""

    checkpoint: str | None = None
    """Folder written by `foretaste train`; None: no learner, requests only pass through."""
    scripted: str | None = None
    """`module:function` from messages to (text, value), called in the server's process."""
    device: str = "auto"
    threads: int = 1
    """Processor threads of the learner's process."""
    temperature: float = 1.0
    """1 samples as in training, so that the answers can be learned from."""
    max_new_tokens: int = 256
    max_context: int = 2048
    concurrent: int = 16
    """Answers that are generated at the same time."""
    deadline_seconds: float = 10.0
    """A request that the learner has not answered by then goes to the incumbent."""
    queue: int = 64
    """Requests of users that may wait for the learner; further ones go to the incumbent."""
    shadow_queue: int = 256
    """Silent answers that may wait; further ones are left out, and counted."""
    shadow_deadline_seconds: float = 120.0


FirstJudge = Literal["comparator", "verifier", "person"]
SecondJudge = Literal["verifier", "person"]


@dataclass(frozen=True, slots=True)
class TakeoverConfig:
    """When the learner's answer is given to the user: share drawn, and V at least the threshold."""

    value: Literal["request", "answer"] = "request"
    """Which V is compared with the threshold: of the request alone, or after the learner's whole answer."""
    comparator: str = "exact"
    """When two answers are the same: `exact` (up to case and blanks), `json`, `none`, or module:function."""
    verifier: str | None = None
    """module:function (messages, answer) -> score in [0, 1] that judges the learner's answers at once."""
    correct_from: float = 0.5
    """Scores from here on count as correct."""
    check_share: float = 0.1
    """Share of the live stage's requests on which both answer although one would do, on average: the sample that tells
    how well the learner does. Fewer in quiet times, all at a first suspicion. In shadow and canary both answer always.
    """
    judge: Literal["auto", "comparator", "verifier", "person"] = "auto"
    """Whose word on the checks the promise rests on; `auto`: the verifier if there is one, else the comparator.
    Feedback that users volunteer never counts. `person`: people judge every check at /people."""
    second_judge: Literal["none", "verifier", "person"] = "none"
    """Who judges a share of the checks again, to see what the first judge misses: errors that the learner shares with
    the incumbent. With `none` the promise is one of agreement with the first judge. `person`: at /people."""
    second_share: float = 0.1
    """Share of the checks that the second judge is asked about, drawn by the request's id."""
    maturity_seconds: float = 0.0
    """A check counts so long after its request, however it was judged; unknown then, it counts as wrong for a threshold
    and as right for a step back. At least as long as the judges may take; 60 suits an endpoint's answers."""
    maturity_requests: int = 0
    """A check also waits for so many further requests."""
    newest: int = 5000
    """Judged answers of the current checkpoint that the threshold is chosen from, at least 150."""
    every_seconds: float = 5.0
    """How often threshold and stage are looked at."""


@dataclass(frozen=True, slots=True)
class CapsConfig:
    """First values of the caps (with share_ceiling and harm_budget of [stages]); later only a person raises them."""

    tokens_per_day: int = 2_000_000
    """Tokens that the learner may generate in a day, silent answers included."""


@dataclass(frozen=True, slots=True)
class HarmConfig:
    """What counts as harm in an answer, before it is served."""

    patterns: tuple[str, ...] = ()
    """Regular expressions; an answer that one of them matches is never served, and counts as harm 1."""
    rule: str | None = None
    """module:function (messages, answer) -> harm in [0, 1]; from `refuse_from` on the answer is not served."""
    refuse_from: float = 0.5


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Where requests, answers, feedback, state and the audit log are."""

    url: str = "deployment"
    """A folder beside the configuration (SQLite), or a URL such as postgresql+psycopg://me@host/foretaste."""
    retention_days: float = 30.0
    """Requests, answers and feedback older than this are deleted; the audit log is kept."""
    queue: int = 20_000
    """Records that may wait to be written; further ones are left out, and counted."""
    queue_bytes: int = 64 << 20
    """Bytes of prompts and answers that may wait to be written; records beyond them are left out, and counted."""
    flush_seconds: float = 0.1
    """Longest time that a record waits to be written with others; feedback never waits."""


@dataclass(frozen=True, slots=True)
class AuditConfig:
    """Where the audit log's head is kept beside the store, so that a log whose end was cut off is found out."""

    heads: str = "audit-heads"
    """A folder beside the configuration or an absolute one, a file a day; "" keeps none. Best where the store's
    administrator cannot write."""
    syslog: bool = False
    """Every head goes to the system's log too, as foretaste in authpriv."""


@dataclass(frozen=True, slots=True)
class OldTasksConfig:
    """What the learner must not forget: a file of questions with their right answers, one JSON object a line."""

    file: str | None = None
    """Lines {"messages": [...], "answer": "...", "task": "name"}; without a file there is nothing to forget."""
    margin: float = 0.05
    """Loss of success on them that is not worth holding a promotion for."""
    delta: float = 0.05


@dataclass(frozen=True, slots=True)
class ExamConfig:
    """The sealed exam that a checkpoint sits before it leaves the shadow."""

    paper: str | None = None
    """A ready-made paper, or the path of a TOML file (docs/exam.md); None: no exam. Each checkpoint that would be
    promoted spends one of the paper's looks."""
    threads: int = 1


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Learning on the job, in a process of its own."""

    enabled: bool = False
    every: int = 64
    """Judged answers from which one step of learning is made."""
    publish_every: int = 8
    """Steps from one checkpoint that is tried to the next."""
    imitate_incumbent: bool = True
    """Where the learner was wrong, the incumbent's answer is learned from too."""
    learning_rate: float = 3e-5
    critic_learning_rate: float = 3e-4
    head_learning_rate: float = 1e-3
    imitation_rate: float = 3e-5
    """Of the supervised steps on corrections."""
    kl_coefficient: float = 0.02
    """Weight of KL(policy || accepted version) in the loss."""
    entropy_coefficient: float = 0.0
    """Weight of the policy's entropy in the loss: higher keeps answers varied."""
    max_log_ratio: float = 1.0
    """An answer whose log-probability has moved by more than this a token since it was sampled teaches no policy."""
    key_share: float = 0.1
    """Largest share of a step's judgements that one key's feedback may be; with K keys at work at least 1 / K."""
    text_share: float = 0.1
    """Largest share of a step that corrections of the same text may be, unless the stated judges give it more often."""
    suspect_chance: float = 1e-4
    """A key's feedback is set aside if it contradicts the stated judges as often by chance with at most this
    probability, were it like the other keys'; 0 tests nothing."""
    held_back_share: float = 0.1
    """Share of the requests that no step learns from: published checkpoints are compared on them."""
    held_back_items: int = 128
    """Newest of them that a published checkpoint answers; 0 compares nothing."""
    keep: int = 4
    """Newest published checkpoints that stay on disk, beside the best kept one and those that the state names."""
    stalled_seconds: float = 60.0
    """A training process that gives no sign of life for so long is ended and started again."""
    step_seconds: float = 3600.0
    """Longest time of one step of learning; a process that takes longer is ended and started again."""
    folder: str = "checkpoints"
    """Where new checkpoints are written, beside the configuration."""
    threads: int = 1
    alarms: AlarmConfig = field(default_factory=AlarmConfig)
    """Limits of healthy learning: the table [training.alarms] below."""


@dataclass(frozen=True, slots=True)
class DeployConfig:
    """A whole deployment: `foretaste serve deploy.toml`."""

    name: str = "foretaste"
    server: ServerConfig = field(default_factory=ServerConfig)
    incumbent: IncumbentConfig = field(default_factory=IncumbentConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    takeover: TakeoverConfig = field(default_factory=TakeoverConfig)
    stages: StageConfig = field(default_factory=StageConfig)
    caps: CapsConfig = field(default_factory=CapsConfig)
    harm: HarmConfig = field(default_factory=HarmConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    old_tasks: OldTasksConfig = field(default_factory=OldTasksConfig)
    exam: ExamConfig = field(default_factory=ExamConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


def load(path: str | Path) -> DeployConfig:
    """Read and check a deployment's TOML.

    Raises: ConfigError if the file is missing, is no TOML, names unknown settings, or holds a value out of range.
    """
    if not Path(path).is_file():
        raise ConfigError(f"No deployment at {str(path)!r}. Write one: foretaste deploy init {path}")
    config = load_recipe(path, DeployConfig)
    check(config)
    return config


def check(config: DeployConfig) -> None:
    """Refuse values that cannot work, before anything is started."""
    if not 0 <= config.takeover.check_share <= 1:
        raise ConfigError(f"takeover.check_share = {config.takeover.check_share} cannot be used; accepted: 0 to 1")
    if not 0 < config.takeover.second_share <= 1:
        raise ConfigError(
            f"takeover.second_share = {config.takeover.second_share} cannot be used; accepted: above 0, up to 1. "
            'For no second judge set takeover.second_judge = "none"'
        )
    for name in ("maturity_seconds", "maturity_requests"):
        if not getattr(config.takeover, name) >= 0:
            raise ConfigError(f"takeover.{name} = {getattr(config.takeover, name)} cannot be used; accepted: 0 or more")
    takeover = config.takeover
    if "verifier" in (takeover.judge, takeover.second_judge) and takeover.verifier is None:
        raise ConfigError(
            "A verifier shall judge (takeover.judge or takeover.second_judge), and none is set. Accepted: "
            'takeover.verifier = "module:function", or another judge'
        )
    if takeover.judge == "comparator" and takeover.comparator == "none":
        raise ConfigError('takeover.judge = "comparator" needs a comparator, and takeover.comparator is "none"')
    if config.takeover.newest < FIRST_LOOK:
        raise ConfigError(
            f"takeover.newest = {config.takeover.newest} cannot be used: no threshold is chosen from fewer than "
            f"{FIRST_LOOK} judged answers; accepted: {FIRST_LOOK} or more"
        )
    positive = {
        "server.max_body_bytes": config.server.max_body_bytes,
        "server.requests_per_minute": config.server.requests_per_minute,
        "server.max_connections": config.server.max_connections,
        "server.max_line_bytes": config.server.max_line_bytes,
        "server.max_header_bytes": config.server.max_header_bytes,
        "server.max_headers": config.server.max_headers,
        "server.header_timeout_seconds": config.server.header_timeout_seconds,
        "server.body_timeout_seconds": config.server.body_timeout_seconds,
        "server.request_timeout_seconds": config.server.request_timeout_seconds,
        "server.shutdown_seconds": config.server.shutdown_seconds,
        "incumbent.attempts": config.incumbent.attempts,
        "incumbent.read_timeout_seconds": config.incumbent.read_timeout_seconds,
        "incumbent.answer_timeout_seconds": config.incumbent.answer_timeout_seconds,
        "incumbent.wait_seconds": config.incumbent.wait_seconds,
        "incumbent.max_connections": config.incumbent.max_connections,
        "learner.max_new_tokens": config.learner.max_new_tokens,
        "learner.deadline_seconds": config.learner.deadline_seconds,
        "store.retention_days": config.store.retention_days,
        "store.queue": config.store.queue,
        "store.queue_bytes": config.store.queue_bytes,
        "training.every": config.training.every,
        "training.publish_every": config.training.publish_every,
        "training.max_log_ratio": config.training.max_log_ratio,
        "training.keep": config.training.keep,
        "training.stalled_seconds": config.training.stalled_seconds,
        "training.step_seconds": config.training.step_seconds,
    }
    for name, value in positive.items():
        if value <= 0:
            raise ConfigError(f"{name} = {value} cannot be used; accepted: more than 0")
    for name in ("key_share", "text_share", "suspect_chance", "held_back_share"):
        if not 0 <= getattr(config.training, name) <= 1:
            raise ConfigError(f"training.{name} = {getattr(config.training, name)} cannot be used; accepted: 0 to 1")
    server = config.server
    check_server(server.certfile, server.keyfile, server.cors_origins)
    if config.incumbent.kind == "openai":
        check_incumbent(config.incumbent.url, server.host, server.port)
    if server.kill_file in ("", ".", "..") or "\0" in server.kill_file:
        raise ConfigError(f"server.kill_file = {server.kill_file!r} cannot be used; accepted: a file's name")
    if config.learner.checkpoint and config.learner.scripted:
        raise ConfigError("learner.checkpoint and learner.scripted are both set; keep the one that shall learn")


def store_url(config: DeployConfig, folder: Path) -> str | Path:
    """Return where the store is: a URL as it stands, a folder relative to the configuration's."""
    return config.store.url if "://" in config.store.url else folder / config.store.url


def files_folder(config: DeployConfig, folder: Path) -> Path:
    """Return where the audit key, the process id and checkpoints are: beside an SQLite store, else `deployment`."""
    return folder / ("deployment" if "://" in config.store.url else config.store.url)
