"""`route`: solvable, held out by sentences and things, only the one name counts."""

import random

import pytest

from foretaste.envs import make, seeds
from foretaste.envs.route import Route
from foretaste.envs.route_words import BANKS, QUEUES
from foretaste.registers import rewrite


def items_of(split, count):
    return [seed for seed, _ in zip(seeds(split), range(count), strict=False)]


@pytest.mark.parametrize("register", Route.registers)
@pytest.mark.parametrize("level", Route.levels)
def test_oracle_solves_every_level_and_register(level, register):
    env = make("route", level=level)
    for seed in [*items_of("train", 50), *items_of("practice", 20), *items_of("sealed", 20)]:
        message, info = env.reset(seed=seed, options={"register": register})
        assert "{" not in message
        assert env.oracle() == info["privileged"]
        assert env.queue in env.queues
        _, reward, terminated, truncated, info = env.step(env.oracle())
        assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, 1.0)


def test_the_register_changes_the_wording_and_not_the_queue():
    env = make("route", level=3)
    for seed in items_of("train", 30):
        plain, _ = env.reset(seed=seed)
        queue, head = env.queue, plain.splitlines()[0]
        for register in Route.registers:
            said, _ = env.reset(seed=seed, options={"register": register})
            assert env.queue == queue
            assert said.splitlines()[0] == head
    assert rewrite("I was charged twice.", "casual", random.Random(0)) != "I was charged twice."


def test_banks_share_no_sentence_and_no_thing():
    def sentences(bank):
        groups = (*bank.complaints.values(), *bank.settled.values(), bank.openings, bank.asides, bank.closings)
        listed = [sentence.lower() for group in groups for sentence in group]
        assert len(set(listed)) == len(listed)
        return set(listed)

    splits = ("train", "practice", "sealed")
    for place, first in enumerate(splits):
        for second in splits[place + 1 :]:
            assert not sentences(BANKS[first]) & sentences(BANKS[second])
            assert not set(BANKS[first].things) & set(BANKS[second].things)
    for bank in BANKS.values():
        assert tuple(bank.complaints) == tuple(bank.settled) == QUEUES


def test_messages_of_a_split_use_its_own_bank_and_all_queues_occur():
    env = make("route", level=3)
    for split in ("train", "practice", "sealed"):
        queues = set()
        for seed in items_of(split, 80):
            message, _ = env.reset(seed=seed)
            queues.add(env.queue)
            assert any(
                message.count(part.format(thing=thing))
                for part in BANKS[split].complaints[env.queue]
                for thing in BANKS[split].things
            )
        assert queues == set(QUEUES)


@pytest.mark.parametrize("level", Route.levels)
def test_queues_grow_with_the_level(level):
    env = make("route", level=level)
    message, _ = env.reset(seed=1)
    assert message.startswith(f"Queues: {', '.join(QUEUES[: level + 3])}\n")


@pytest.mark.parametrize(
    "reply", ["", "{queue} or {other}", "{other}", "{queue} {queue}", "It is {queue}", "{queue}, {other}", "\x00"]
)
def test_hedged_and_wrapped_replies_earn_nothing(reply):
    env = make("route")
    for seed in items_of("train", 10):
        env.reset(seed=seed)
        other = next(queue for queue in env.queues if queue != env.queue)
        assert env.step(reply.replace("{queue}", env.queue).replace("{other}", other))[1] == 0.0
        env.reset(seed=seed)
        assert env.step(f" {env.queue.capitalize()}.\n")[1] == 1.0
