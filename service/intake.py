"""A request becomes a job: its clip is looked at and stored, its windows are planned, its messages sent.

Everything here blocks, and runs in a thread of the API; nothing of the clip is decoded in this process.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from dramatiq.brokers.redis import RedisBroker

from models.media import Media, Summary, plan
from models.recommended import AUTO, BASELINES, DEAF
from models.strategies import Strategy
from service.clips import Clip, ClipStore
from service.decoding import Sandbox, media_limits
from service.engine import send_all
from service.errors import NAME_CHARACTERS, Refusal, invalid
from service.jobs import JobStore
from service.options import JobOptions, merged, params_of, read_options
from service.records import Idempotency, Job, JobRecord
from service.settings import Settings
from service.storage import Storage
from service.uploads import FILE_PARTS, Form, ReceivedFile

T = TypeVar("T")
PARTS = "`media`, `video` with `audio`, `frames[]` with `audio`, or an `upload_id`"


@dataclass(frozen=True)
class Order:
    """What a client asks for. `fields` are the options by name, in order; `files` the clip's parts;
    `requested` the strategy by the client's own word, where that was `auto`; `name` the client's own for the
    job."""

    strategy: str
    tenant: str
    fields: Sequence[tuple[str, Any]]
    files: Mapping[str, Sequence[ReceivedFile]] = field(default_factory=dict)
    upload_id: str | None = None
    idempotency_key: str | None = None
    name: str = ""
    request_id: str = ""
    requested: str = ""


def order_of(
    form: Form,
    query: Sequence[tuple[str, str]],
    strategy: str | None,
    otherwise: str | None = None,
    **rest: Any,  # noqa: ANN401
) -> Order:
    """Sort the fields of a request: `upload_id` and `strategy` are no options of a strategy. `otherwise` is
    the strategy of a request that names none."""
    fields = [*opened_params([*query, *form.fields])]
    named = {name: value for name, value in fields if name in {"upload_id", "strategy"}}
    for name, value in named.items():
        if not isinstance(value, str) or not value.isprintable() or not value:  # half a surrogate pair is not
            raise invalid(f"/{name}", f"`{name}` must be a string of printable characters, and not empty.")
    chosen = strategy or named.get("strategy") or otherwise
    if chosen is None:
        raise invalid("/strategy", "Name a strategy; /v1/strategies lists them.")
    options = [
        (name, value) for name, value in fields if name != "upload_id" and (strategy or name != "strategy")
    ]
    return Order(strategy=chosen, fields=options, files=form.files, upload_id=named.get("upload_id"), **rest)


def opened_params(fields: Sequence[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """`params` may carry `upload_id` and `strategy` too (a JSON body has no other place for them)."""
    for name, value in fields:
        if name != "params":
            yield name, value
            continue
        document = params_of(value)
        for key in ("upload_id", "strategy"):
            if key in document:
                yield key, document.pop(key)
        yield name, document


class Intake:
    """Takes uploads and orders."""

    def __init__(
        self,
        settings: Settings,
        registry: Mapping[str, Strategy],
        stores: tuple[Storage, ClipStore, JobStore],
        sandbox: Sandbox,
        broker: RedisBroker,
    ) -> None:
        self.settings, self.registry = settings, registry
        self.storage, self.clips, self.jobs = stores
        self.sandbox, self.broker = sandbox, broker
        self.limits = media_limits(settings)

    def strategy(self, name: str) -> Strategy:
        found = self.registry.get(name)
        if found is None:
            names = ", ".join([AUTO, *self.registry])
            raise Refusal("not_found", f"There is no strategy `{name[:NAME_CHARACTERS]}`; there are {names}.")
        return found

    def upload(
        self, files: Mapping[str, Sequence[ReceivedFile]], tenant: str, *, owned: bool = False
    ) -> Clip:
        """Look at a clip in the sandbox, and store its parts; refused clips leave nothing behind."""
        media = media_of(files)
        summary = self.sandbox.probe(media, self.limits)
        clip_id = uuid4().hex
        keys = {part: self.stored(clip_id, part, received) for part, received in files.items()}
        clip = Clip(
            id=clip_id,
            tenant=tenant,
            video=first(keys.get("media") or keys.get("video")),
            audio=first(keys.get("audio")),
            frames=tuple(keys.get("frames", ())),
            summary=asdict(summary),
            sha256=digest(files),
            size=sum(file.size for received in files.values() for file in received),
            owned=owned,
            expires_at=time.time() + self.settings.upload_ttl,
        )
        self.clips.put(clip)
        return clip

    def stored(self, clip_id: str, part: str, received: Sequence[ReceivedFile]) -> list[str]:
        """The storage keys of the files of one part; `part` is one of four words, never a client's own."""
        keys = [f"uploads/{clip_id}/{part}-{number:05d}" for number in range(len(received))]
        for key, file in zip(keys, received, strict=True):
            self.storage.put_file(file.path, key)
        return keys

    def options(self, order: Order) -> JobOptions:
        """The options of an order, checked; an unknown strategy is refused."""
        strategy = self.strategy(order.strategy)
        return read_options(strategy, merged(strategy, order.fields))

    def submit(self, order: Order) -> tuple[JobRecord, bool]:
        """The job of an order, and whether it is new: an idempotency key may have made it before."""
        options = self.options(order)
        known = self.replayed(order, options)
        if known is not None:
            return known, False
        clip = self.clip(order)
        try:
            record, created = self.create(order, options, clip)
        except Exception:
            self.drop_owned(clip)
            raise
        if created:
            send_all(self.broker, self.jobs.next_windows(record.id))
        else:
            self.drop_owned(clip)
        return record, created

    def replayed(self, order: Order, options: JobOptions) -> JobRecord | None:
        """The job that the same key made of the same upload: a key is remembered longer than an upload."""
        key = idempotency_of(order, options, order.upload_id) if order.upload_id and not order.files else None
        return self.jobs.made_before(order.tenant, key) if key else None

    def create(self, order: Order, options: JobOptions, clip: Clip) -> tuple[JobRecord, bool]:
        summary = Summary(**clip.summary)
        together = self.strategy(order.strategy).together
        windows = plan(summary, options.sampling, self.limits, together)
        job = Job(
            id=uuid4().hex,
            name=order.name,
            tenant=order.tenant,
            strategy=order.strategy,
            requested=order.requested or order.strategy,
            clip=clip,
            options=options.options,
            outputs=options.outputs,
            interactive=windows[-1].times[-1] - windows[0].times[0] <= self.settings.interactive_seconds,
            deadline=None if options.deadline is None else time.time() + options.deadline,
            metadata=options.metadata,
            request_id=order.request_id,
            warnings=(DEAF.format(name=order.strategy),) if resorted(order) else (),
        )
        return self.jobs.create(job, windows, idempotency_of(order, options, order.upload_id or clip.sha256))

    def clip(self, order: Order) -> Clip:
        """The order's clip: an upload it names, or the files it brings."""
        if order.upload_id is None:
            return self.upload(order.files, order.tenant, owned=True)
        if order.files:
            raise invalid("/upload_id", f"Send one of {PARTS}, not two.")
        found = self.clips.get(order.upload_id, order.tenant)
        if found is None:
            raise Refusal("not_found", "There is no such upload, or it has expired; send the clip again.")
        return found

    def drop_owned(self, clip: Clip) -> None:
        """A clip that came with a job that was not made serves nobody."""
        if clip.owned:
            self.clips.drop(clip.id)


def resorted(order: Order) -> bool:
    """Whether `auto` had nothing better than a baseline."""
    return order.requested == AUTO and order.strategy in BASELINES


def media_of(files: Mapping[str, Sequence[ReceivedFile]]) -> Media:
    """The parts of a request as media; a wrong combination is refused."""
    for part in FILE_PARTS[:3]:
        if len(files.get(part, ())) > 1:
            raise invalid(f"/{part}", f"Send one `{part}`.")
    parts = {part: tuple(file.path for file in received) for part, received in files.items()}
    match sorted(parts):
        case ["media"] | ["video"]:
            return Media(video=only(parts))
        case ["audio", "video"]:
            return Media(video=parts["video"][0], audio=parts["audio"][0])
        case ["audio", "frames"] | ["frames"]:
            return Media(frames=parts["frames"], audio=first(parts.get("audio")))
    given = f"; there were {', '.join(sorted(parts))}" if parts else ""
    raise invalid("/media", f"Send the clip as {PARTS}{given}.")


def only(parts: Mapping[str, Sequence[Path]]) -> Path:
    [[path]] = parts.values()
    return path


def first(values: Sequence[T] | None) -> T | None:
    return values[0] if values else None


def digest(files: Mapping[str, Sequence[ReceivedFile]]) -> str:
    """sha256 of a single file, or of the hashes of several."""
    hashes = [file.sha256 for part in sorted(files) for file in files[part]]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def idempotency_of(order: Order, options: JobOptions, clip: str) -> Idempotency | None:
    """The client's key, with a digest of what it asked: equal requests are the same job."""
    if order.idempotency_key is None:
        return None
    asked = [order.requested or order.strategy, options.given, clip]
    return Idempotency(
        order.idempotency_key, hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    )
