"""The queue: Dramatiq on Redis, one message a window. What is here only fits it to our needs.

- `interactive` goes before `windows`, in every worker, whatever order the messages came in.
- A worker takes a message only when a thread is free for it: prefetched messages would wait behind its own
  long windows while another worker idles, and one long job would not spread evenly.
- Dramatiq polls. A bell (a pub/sub channel) wakes the poll, so a message is taken within a millisecond, and
  an idle worker asks once a second. A bell that is not heard costs that second, nothing else.
- Every poll does Dramatiq's maintenance, which gives the messages of a dead worker to the living.

No middleware: a window's starts, deadline and errors are in the job record, and the actor never raises.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dramatiq
import redis
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.brokers.redis import MAINTENANCE_SCALE, RedisBroker
from dramatiq.errors import ConnectionClosed
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from service.records import Send
from service.settings import Settings
from service.steps import BELL, MESSAGES

INTERACTIVE, WINDOWS = "interactive", "windows"
ACTORS = {INTERACTIVE: "run_interactive", WINDOWS: "run_window"}
IDLE_SECONDS = 1.0  # between polls while no bell rings; also the heartbeat of a busy worker
Handlers = Mapping[str, Callable[[str], None]]  # what to do with a message, by channel
ANSWER_SECONDS = 5.0  # Redis answers in a millisecond, or hangs


def connect(settings: Settings) -> redis.Redis:
    """A client for the stores. One quick retry heals a connection that a restarted server cut."""
    return redis.Redis.from_url(
        settings.redis_url,
        decode_responses=True,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
        retry=Retry(ConstantBackoff(0.05), 1),
    )


def make_broker(settings: Settings, slots: Slots | None = None) -> RedisBroker:
    """A broker to send with, or, given a worker's `slots`, to take messages from."""
    client = redis.Redis.from_url(
        settings.redis_url,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
        retry=Retry(ConstantBackoff(0.05), 1),
    )
    options: dict[str, Any] = {
        "client": client,
        "namespace": MESSAGES,
        "heartbeat_timeout": round(settings.redelivery_seconds * 1000),
        "middleware": [],
    }
    if slots is None:
        broker = RedisBroker(maintenance_chance=0, **options)  # type: ignore[no-untyped-call]  # Dramatiq's
    else:
        broker = SlottedBroker(slots, maintenance_chance=MAINTENANCE_SCALE, **options)
    for queue in ACTORS:
        broker.declare_queue(queue)
    broker.delay_queues.clear()  # nothing is ever sent with a delay: no consumer need look for it
    return broker


def send_window(broker: RedisBroker, send: Send) -> None:
    """Put one window on its queue."""
    queue = INTERACTIVE if send.interactive else WINDOWS
    put(broker, queue, ACTORS[queue], send.job, send.window)


def put(broker: RedisBroker, queue: str, actor: str, *args: str | int) -> None:
    """Put a message on a queue and ring."""
    message: dramatiq.Message[None] = dramatiq.Message(
        queue_name=queue, actor_name=actor, args=args, kwargs={}, options={}
    )
    broker.enqueue(message)
    broker.client.publish(BELL, queue)


def send_all(broker: RedisBroker, windows: Iterable[Send]) -> None:
    for send in windows:
        send_window(broker, send)


class Slots:
    """A worker's threads as its two consumers see them: how many are free, and when to look for messages.

    A thread that falls free is offered to the interactive queue; when that is empty, to the other.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._closed = False
        self._taken = 0
        self._refused: set[str] = set()
        self._lock = threading.Lock()
        self._bells = {queue: threading.Event() for queue in ACTORS}

    def take(self, queue: str) -> bool:
        """Reserve a thread for a message of this queue, if one is free."""
        with self._lock:
            if self._closed or self._taken >= self.threads:
                self._refused.add(queue)
                return False
            self._refused.discard(queue)
            self._taken += 1
            return True

    def give(self) -> None:
        """A thread has done its message; who was refused one meanwhile may look again, short work first."""
        with self._lock:
            self._taken -= 1
            awaited = bool(self._refused)
        if awaited:
            self.ring(INTERACTIVE)

    def give_back(self, queue: str) -> None:
        """There was no message in this queue: the thread goes to the other, if that was refused one."""
        with self._lock:
            self._taken -= 1
            refused = self._refused - {queue}
        for other in refused:
            self.ring(other)

    def ring(self, queue: str) -> None:
        """Somebody put a message on this queue."""
        self._bells[queue].set()

    def ring_all(self) -> None:
        """Messages may have come unheard."""
        for bell in self._bells.values():
            bell.set()

    def wait(self, queue: str) -> None:
        """Until the queue's bell rings, or it is time to ask all the same."""
        if self._bells[queue].wait(IDLE_SECONDS):
            self._bells[queue].clear()

    def close(self) -> None:
        """Take no more messages."""
        with self._lock:
            self._closed = True
        self.ring_all()


class SlottedBroker(RedisBroker):
    """Dramatiq's broker, whose consumers ask for a message only when a thread is free for it."""

    def __init__(self, slots: Slots, **options: Any) -> None:  # noqa: ANN401 (they are Dramatiq's)
        super().__init__(**options)  # type: ignore[no-untyped-call]  # Dramatiq's
        self.slots = slots

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 0) -> Consumer:  # noqa: ARG002 (below)
        """`prefetch` and `timeout` are the slots' business here."""
        return SlottedConsumer(self, queue_name, super().consume(queue_name, prefetch=1, timeout=0))


class SlottedConsumer(Consumer):
    """Dramatiq's consumer `inner`, one message at a time and one slot for each until it is acknowledged."""

    def __init__(self, broker: SlottedBroker, queue: str, inner: Any) -> None:  # noqa: ANN401 (untyped there)
        self.broker, self.slots, self.queue, self.inner = broker, broker.slots, queue, inner
        self._contact = 0.0

    def __next__(self) -> MessageProxy | None:
        """The next message, or None after a while without one."""
        message = None
        if self.slots.take(self.queue):
            message = self._fetch()
        else:
            self._beat()
        if message is None:
            self.slots.wait(self.queue)
        return message

    def ack(self, message: MessageProxy) -> None:
        with closing():
            self.inner.ack(message)
        self.slots.give()

    def nack(self, message: MessageProxy) -> None:
        with closing():
            self.inner.nack(message)
        self.slots.give()

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Put messages back that no thread began."""
        with closing():
            self.inner.requeue(messages)
            self.broker.client.publish(BELL, self.queue)

    def _fetch(self) -> MessageProxy | None:
        """Ask for one message more than are in work."""
        message: MessageProxy | None = None
        self.inner.prefetch = self.inner.outstanding_message_count + 1
        try:
            with closing():
                message = next(self.inner)
        finally:
            if message is None:
                self.slots.give_back(self.queue)
        self._contact = time.monotonic()
        return message

    def _beat(self) -> None:
        """All threads are at work: stay alive in the broker's eyes, and look for dead workers."""
        if time.monotonic() - self._contact >= IDLE_SECONDS:
            with closing():
                self.broker.do_fetch(self.queue, 0)
            self._contact = time.monotonic()


@contextmanager
def closing() -> Iterator[None]:
    """Whatever ails Redis, Dramatiq is to connect and try again, as it does for a closed connection."""
    try:
        yield
    except redis.RedisError as error:
        raise ConnectionClosed(error) from error  # type: ignore[no-untyped-call]  # Dramatiq's


class Listener(threading.Thread):
    """Hears channels and calls their handlers with each message; `on_connect` after every (re)connection."""

    def __init__(self, settings: Settings, handlers: Handlers, on_connect: Callable[[], None]) -> None:
        super().__init__(name="listener", daemon=True)
        self.client = connect(settings)
        self.handlers = handlers
        self.on_connect = on_connect
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except redis.RedisError:
                self._stopping.wait(0.5)

    def _listen(self) -> None:
        # redis-py has no types here.
        with self.client.pubsub(ignore_subscribe_messages=True) as channels:  # type: ignore[no-untyped-call]
            channels.subscribe(*self.handlers)
            self.on_connect()
            while not self._stopping.is_set():
                message = channels.get_message(timeout=IDLE_SECONDS)
                if message is not None:
                    self.handlers[message["channel"]](message["data"])

    def stop(self) -> None:
        self._stopping.set()
        self.join()
        self.client.close()
