"""The tables of a deployment's store, and the numbered migrations that lead to them.

`deploy_meta` holds the version and the last numbers given. A new table or column is added to the tables here and as a
new migration for databases that have none yet. `database.py` opens the store; `store.py` reads and writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from foretaste.hash_chain import GENESIS

metadata = sa.MetaData()

_number = sa.BigInteger().with_variant(sa.Integer, "sqlite")

meta = sa.Table(
    "deploy_meta",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
requests = sa.Table(
    "deploy_requests",
    metadata,
    sa.Column("number", _number, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("upstream_id", sa.String(128)),  # the id in the incumbent's body, by which clients know the answer
    sa.Column("key", sa.String(32), nullable=False),
    sa.Column("created", sa.Float, nullable=False),  # seconds since 1970
    sa.Column("stage", sa.String(16), nullable=False),
    sa.Column("drawn", sa.Boolean, nullable=False),  # fell into the learner's share
    sa.Column("sampled", sa.Boolean, nullable=False),  # both answer whatever V says: an unbiased sample
    sa.Column("check_share", sa.Float),  # the probability with which it was drawn for that
    sa.Column("second", sa.Boolean),  # drawn for the second judge
    sa.Column("route", sa.String(16), nullable=False),  # who answered the user: incumbent, learner, person, nobody
    sa.Column("reason", sa.String(64), nullable=False),  # why not the learner
    sa.Column("stream", sa.Boolean, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("body", sa.Text),  # the request as JSON; private
    sa.Index("deploy_requests_by_upstream", "key", "upstream_id"),
    sa.Index("deploy_requests_by_time", "created"),
)
answers = sa.Table(
    "deploy_answers",
    metadata,
    sa.Column("number", _number, primary_key=True, autoincrement=True),
    sa.Column("request", sa.String(64), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),  # incumbent, learner, person
    sa.Column("served", sa.Boolean, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("text", sa.Text),  # private
    sa.Column("checkpoint", sa.String(64)),
    sa.Column("value", sa.Float),  # V of the request
    sa.Column("answer_value", sa.Float),  # V after the whole answer
    sa.Column("prompt_tokens", sa.Integer),
    sa.Column("completion_tokens", sa.Integer),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("harm", sa.Float, nullable=False, default=0.0),
    sa.Column("score", sa.Float),  # the last judgement of this answer, in [0, 1]
    sa.Column("judge", sa.String(32)),  # user, comparator, verifier
    sa.Column("judged", _number),  # counts up over all judgements, so that training reads on where it stopped
    sa.Column("trace", sa.Text),  # JSON: prompt ids, sampled ids, log-probabilities, values
    sa.Index("deploy_answers_by_request", "request"),
    sa.Index("deploy_answers_by_judgement", "judged"),
    sa.Index("deploy_answers_by_checkpoint", "checkpoint", "number"),
    sa.Index("deploy_answers_by_time", "created"),
)
feedback = sa.Table(
    "deploy_feedback",
    metadata,
    sa.Column("number", _number, primary_key=True, autoincrement=True),
    sa.Column("request", sa.String(64), nullable=False),
    sa.Column("key", sa.String(32), nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),  # score, correction, thumbs, verifier
    sa.Column("score", sa.Float),
    sa.Column("text", sa.Text),  # a correction; private
    sa.Column("digest", sa.String(64), nullable=False),
    sa.UniqueConstraint("request", "digest", name="deploy_feedback_once"),
)
judgements = sa.Table(
    "deploy_judgements",  # what stated judges say of the learner's answers; the first word of each holds
    metadata,
    sa.Column("answer", _number, primary_key=True, autoincrement=False),  # deploy_answers.number
    sa.Column("judge", sa.String(16), primary_key=True),  # comparator, verifier, person, undecided (person)
    sa.Column("score", sa.Float, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Index("deploy_judgements_by_time", "created"),
)
keys = sa.Table(
    "deploy_keys",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("scope", sa.String(16), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False, unique=True),  # SHA-256; the key itself is nowhere
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("revoked", sa.Float),
)
state = sa.Table(
    "deploy_state",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),  # JSON
    sa.Column("event", _number, nullable=False),  # the audit entry that set it
)
events = sa.Table(
    "deploy_events",
    metadata,
    sa.Column("seq", _number, primary_key=True, autoincrement=False),
    sa.Column("created", sa.String(40), nullable=False),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("actor", sa.String(128), nullable=False),
    sa.Column("payload", sa.Text, nullable=False),  # canonical JSON
    sa.Column("hash", sa.String(64), nullable=False),
)
head = sa.Table(
    "deploy_head",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)
digests = sa.Table(
    "deploy_digests",  # what every judged answer was when it was judged: a chain, whose head the audit log holds
    metadata,
    sa.Column("number", _number, primary_key=True, autoincrement=False),
    sa.Column("answer", _number, nullable=False),  # deploy_answers.number
    sa.Column("created", sa.Float, nullable=False),  # of the answer, seconds since 1970
    sa.Column("digest", sa.String(64), nullable=False),  # SHA-256 of the answer's row; "gone" where it was deleted
    sa.Column("hash", sa.String(64), nullable=False),
)
checkpoints = sa.Table(
    "deploy_checkpoints",
    metadata,
    sa.Column("number", _number, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("parent", sa.String(64)),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("note", sa.Text, nullable=False),  # JSON: what the trainer reports
)

REQUESTS, JUDGEMENTS = "requests", "judgements"
"""Counters in `deploy_meta`: the last number given. Deletion of rows does not set them back."""


Migration = Callable[[Connection], None]


def _index_answers_by_time(connection: Connection) -> None:
    connection.execute(sa.text("CREATE INDEX deploy_answers_by_time ON deploy_answers (created)"))


def _count_in_meta(connection: Connection) -> None:
    """Begin the counters where numbers stand, or where the state says they stood before old records were deleted."""
    places = "SELECT value FROM deploy_state WHERE name IN ('since', 'fresh_from', 'candidate_since')"
    known = [int(value) for value in connection.scalars(sa.text(places))]
    seen = [int(connection.scalar(sa.text("SELECT MAX(number) FROM deploy_requests")) or 0), *known]
    judged = int(connection.scalar(sa.text("SELECT MAX(judged) FROM deploy_answers")) or 0)
    _begin_counters(connection, max(seen), judged)


def _begin_counters(connection: Connection, seen: int, judged: int) -> None:
    rows = [{"name": REQUESTS, "value": str(seen)}, {"name": JUDGEMENTS, "value": str(judged)}]
    connection.execute(meta.insert(), rows)


def _judgements_of_their_own(connection: Connection) -> None:
    """Keep what stated judges say apart from feedback; what users said is in `deploy_answers` as before."""
    present = {one["name"] for one in sa.inspect(connection).get_columns(requests.name)}
    for column in (requests.c.check_share, requests.c.second):
        if column.name not in present:
            kind = column.type.compile(connection.dialect)
            connection.execute(sa.text(f"ALTER TABLE {requests.name} ADD COLUMN {column.name} {kind}"))
    judgements.create(connection, checkfirst=True)
    connection.execute(
        sa.text(
            "INSERT INTO deploy_judgements (answer, judge, score, created) "
            "SELECT number, judge, score, created FROM deploy_answers "
            "WHERE role = 'learner' AND score IS NOT NULL AND judge IN ('comparator', 'verifier') "
            "AND number NOT IN (SELECT answer FROM deploy_judgements)"
        )
    )


def _chain_of_judgements(connection: Connection) -> None:
    """Make room for the digests; those of earlier judgements are made when the store is next opened with its key."""
    digests.create(connection, checkfirst=True)


MIGRATIONS: tuple[Migration, ...] = (
    _index_answers_by_time,
    _count_in_meta,
    _judgements_of_their_own,
    _chain_of_judgements,
)
"""The step at place i leads from version i + 1 to i + 2."""


def version_of(connection: Connection) -> int:
    """Return the version of the tables that are there; 0: there are none."""
    if not sa.inspect(connection).has_table(meta.name):
        return 0
    return int(connection.scalar(sa.select(meta.c.value).where(meta.c.name == "version")) or 0)


def migrate(connection: Connection, steps: Sequence[Migration] = MIGRATIONS) -> tuple[int, int]:
    """Bring the database up to date, inside the caller's write transaction; return the versions before and after.

    An empty database gets today's tables at once. Version 0 stands for one that has none.
    Raises: ValueError if the database was written by a newer foretaste.
    """
    newest, before = len(steps) + 1, version_of(connection)
    if before > newest:
        raise ValueError(f"its version {before} is newer than this foretaste reads ({newest}); upgrade foretaste")
    if before == 0:
        metadata.create_all(connection)
        connection.execute(head.insert().values(id=1, seq=0, hash=GENESIS))
        connection.execute(meta.insert().values(name="version", value=str(newest)))
        _begin_counters(connection, 0, 0)
    elif before < newest:
        for step in steps[before - 1 :]:
            step(connection)
        connection.execute(meta.update().where(meta.c.name == "version").values(value=str(newest)))
    return before, newest
