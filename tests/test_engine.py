"""Dramatiq as we fit it: woken by the bell, one message a free thread, short work first, no message lost."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker

from service.engine import ACTORS, INTERACTIVE, WINDOWS, Listener, Slots, make_broker, send_window
from service.records import Send
from service.settings import Settings
from service.steps import BELL
from tests.workers import until

NAMESPACE = "avs:mq"


class Taker:
    """A worker's queue side: what it took, in order; each message holds its thread until let go."""

    def __init__(self, settings: Settings, threads: int = 1, hold: bool = False) -> None:
        self.taken: list[tuple[str, int, float]] = []
        self.go = threading.Event()
        if not hold:
            self.go.set()
        self.slots = Slots(threads)
        self.broker = make_broker(settings, self.slots)
        self.listener = Listener(settings, {BELL: self.slots.ring}, self.slots.ring_all)
        for queue, actor in ACTORS.items():
            priority = 0 if queue == INTERACTIVE else 1
            declare = dramatiq.actor(
                actor_name=actor, queue_name=queue, priority=priority, broker=self.broker
            )
            declare(self.take)
        self.consumers = dramatiq.Worker(self.broker, worker_threads=threads, worker_timeout=50)

    def take(self, job: str, window: int) -> None:
        self.taken.append((job, window, time.monotonic()))
        self.go.wait(10)

    def __enter__(self) -> Taker:
        self.consumers.start()
        self.listener.start()
        time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self.go.set()
        self.slots.close()
        self.consumers.stop(5000)
        self.listener.stop()
        self.broker.client.close()

    def windows(self) -> list[int]:
        return [window for _, window, _ in self.taken]


@pytest.fixture
def hasty(settings: Settings) -> Settings:
    return settings.model_copy(update={"redelivery_seconds": 2.0})


@pytest.fixture
def broker(hasty: Settings, client: redis.Redis) -> Iterator[RedisBroker]:
    broker = make_broker(hasty)
    yield broker
    broker.client.close()


def size(client: redis.Redis, queue: str) -> int:
    """Messages of a queue, waiting or in work."""
    count: Any = client.hlen(f"{NAMESPACE}:{queue}.msgs")
    return int(count)


def measured(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def test_an_idle_worker_takes_a_message_within_milliseconds(hasty: Settings, broker: RedisBroker) -> None:
    with Taker(hasty) as taker:
        delays = []
        for window in range(20):
            time.sleep(0.02)
            began = time.monotonic()
            send_window(broker, Send("job", window, interactive=bool(window % 2)))
            assert until(lambda n=window: len(taker.taken) > n, 5, every=0.0005)
            delays.append(taker.taken[-1][2] - began)
        assert taker.windows() == list(range(20))
        assert statistics.median(delays) < 0.1, delays  # 3 ms on an idle machine; 500 by polls alone


def test_a_bell_that_nobody_heard_costs_a_second(hasty: Settings, broker: RedisBroker) -> None:
    with Taker(hasty) as taker:
        taker.listener.stop()
        time.sleep(0.1)
        send_window(broker, Send("job", 0, interactive=False))
        assert until(lambda: taker.taken, 3)
        taker.listener = Listener(hasty, {BELL: taker.slots.ring}, taker.slots.ring_all)
        taker.listener.start()


def test_a_busy_worker_leaves_messages_to_others(
    hasty: Settings, broker: RedisBroker, client: redis.Redis
) -> None:
    with Taker(hasty, threads=2, hold=True) as busy:
        for window in range(5):
            send_window(broker, Send("long", window, interactive=False))
        assert until(lambda: len(busy.taken) == 2, 5)
        time.sleep(0.2)
        assert client.llen(f"{NAMESPACE}:{WINDOWS}") == 3
        with Taker(hasty, threads=4) as other:
            assert until(lambda: len(other.taken) == 3, 5)
        assert len(busy.taken) == 2


def test_a_thread_that_falls_free_takes_short_work_first(hasty: Settings, broker: RedisBroker) -> None:
    with Taker(hasty, hold=True) as taker:
        send_window(broker, Send("long", 0, interactive=False))
        assert until(lambda: taker.taken, 5)
        for window in range(1, 4):
            send_window(broker, Send("long", window, interactive=False))
        for window in range(10, 13):
            send_window(broker, Send("short", window, interactive=True))
        time.sleep(0.1)
        taker.go.set()
        assert until(lambda: len(taker.taken) == 7, 10)
        assert taker.windows() == [0, 10, 11, 12, 1, 2, 3]


def test_every_message_of_many_is_taken_once(
    hasty: Settings, broker: RedisBroker, client: redis.Redis
) -> None:
    with Taker(hasty, threads=3) as first, Taker(hasty, threads=3) as second:
        for window in range(300):
            send_window(broker, Send("job", window, interactive=window % 3 == 0))
        assert until(lambda: len(first.taken) + len(second.taken) == 300, 30)
        assert sorted(first.windows() + second.windows()) == list(range(300))
        assert until(lambda: size(client, WINDOWS) + size(client, INTERACTIVE) == 0, 5)
        assert until(lambda: first.slots._taken == second.slots._taken == 0, 5), "no thread is left reserved"


def test_a_dead_workers_messages_go_to_one_that_is_busy_all_the_time(
    hasty: Settings, broker: RedisBroker, client: redis.Redis
) -> None:
    # A broker that took a message and was never heard of again.
    dead = make_broker(hasty, Slots(1))
    send_window(broker, Send("lost", 7, interactive=False))
    dead.do_fetch(WINDOWS, 1)
    dead.client.close()
    with Taker(hasty, hold=True) as living:
        send_window(broker, Send("long", 0, interactive=False))
        assert until(lambda: living.windows() == [0], 5)
        # Its only thread is taken; its polls do the maintenance all the same.
        assert until(lambda: client.llen(f"{NAMESPACE}:{WINDOWS}") == 1, 5)
        living.go.set()
        assert until(lambda: living.windows() == [0, 7], 5)


def test_a_closed_worker_takes_nothing_and_stops_at_once(
    hasty: Settings, broker: RedisBroker, client: redis.Redis
) -> None:
    with Taker(hasty) as taker:
        taker.slots.close()
        send_window(broker, Send("job", 0, interactive=False))
        time.sleep(0.3)
        assert taker.taken == []
        assert measured(lambda: taker.consumers.stop(5000)) < 1.5
    assert size(client, WINDOWS) == 1


def test_an_idle_worker_asks_little_of_redis(hasty: Settings, client: redis.Redis) -> None:
    def commands() -> int:
        info: Any = client.info("stats")
        return int(info["total_commands_processed"])

    with Taker(hasty, threads=4):
        before = commands()
        time.sleep(2)
        # Each poll is a script of a few commands, and each of two queues is polled once a second.
        assert commands() - before < 60
