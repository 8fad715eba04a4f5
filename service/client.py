"""The Python client: a clip in, masks out, over HTTP and nothing else of this package's server.

    with Client("http://127.0.0.1:8000") as client:
        for frame in client.segment("clip.mp4", "ac-fpn", fps=2).frames:
            print(frame.timestamp, frame.mask.pixels().mean())

What it raises is the tree in `client_errors.py`. Requests that meet 429, 502, 503, 504 or a broken connection
are sent again, later and later. That is safe: every job carries an Idempotency-Key of its own, so that a
request which arrived twice still runs once.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from service.client_errors import (
    ClientError,
    ServerUnreachable,
    WaitTimeout,
    problem_error,
    refusal,
)
from service.frames import Frame, read_frame

DEFAULT_URL = "http://127.0.0.1:8000"
UPLOAD_BYTES = 16 * 1024 * 1024  # a larger clip is sent once, by itself, so that no retry sends it again
WAIT = 25  # seconds that a synchronous call waits in one request
FIRST_DELAY, LONGEST_DELAY = 0.25, 10.0  # seconds between tries
CONNECTION_TRIES = 4  # of an address that never answered: about two seconds
POLL_FIRST, POLL_LONGEST = 0.05, 1.0  # seconds between looks at a job
FINAL = {"succeeded", "failed", "canceled", "expired"}
ENDED = {"canceled": ("job_canceled", 409), "expired": ("deadline_passed", 410)}  # as the service says it
COPY_BYTES = 1024 * 1024
RENDER_SECONDS = 600.0  # that making an overlay may take


@dataclass(frozen=True)
class Progress:
    """How far a job is; `status` is queued, running, succeeded, failed, canceled or expired."""

    status: str
    stage: str
    frames_done: int
    frames_total: int
    queue_position: int | None = None


OnProgress = Callable[[Progress], None]
Clip = Path | str | Sequence[Path | str]  # one file with picture and sound, or images in order


class Client:
    """One service. Safe to share between threads; close it, or use it as a context manager."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        patience: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`patience` is how many seconds one call goes on trying a service that is too busy."""
        self.patience = patience
        self.met = False  # whether the service ever answered: then it is being restarted, not missing
        self.http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(60.0, connect=5.0),
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.http.close()

    def segment(
        self,
        media: Clip,
        strategy: str = "auto",
        *,
        audio: Path | str | None = None,
        on_progress: OnProgress | None = None,
        **options: Any,  # noqa: ANN401
    ) -> Result:
        """Sends a clip and returns its masks, however long that takes. A `Path` among the options is a list:
        the lines of that file."""
        wait = 0 if on_progress else WAIT  # a call that waits cannot show progress
        url, headers = f"/v1/segment/{strategy}", {"Prefer": f"wait={wait}"}
        response = self._create(url, media, audio, options, headers)
        if response.status_code == httpx.codes.OK:
            document = response.json()
            return Result(self.job(document["job_id"]), document)
        return Job(self, response.json()).wait(on_progress).result()

    def submit(
        self,
        media: Clip,
        strategy: str = "auto",
        *,
        audio: Path | str | None = None,
        **options: Any,  # noqa: ANN401
    ) -> Job:
        """Sends a clip and returns at once."""
        return Job(self, self._create("/v1/jobs", media, audio, options, strategy=strategy).json())

    def job(self, job_id: str) -> Job:
        """A job by its id, looked up when something is asked of it."""
        return Job(self, {"id": job_id})

    def strategies(self) -> list[dict[str, Any]]:
        """Each strategy with the schema of its options, and whether it is ready."""
        listed: list[dict[str, Any]] = self.send("GET", "/v1/strategies").json()["data"]
        return listed

    def send(
        self,
        method: str,
        url: str,
        *,
        files: Sequence[tuple[str, Path]] = (),
        stream: bool = False,
        **request: Any,  # noqa: ANN401
    ) -> httpx.Response:
        """One request, sent until it is answered or our patience ends. A refusal is raised.

        Nothing sent here does harm when it arrives twice: jobs carry their key, and the rest only reads,
        cancels, deletes, or stores an upload that expires by itself.
        """
        give_up = time.monotonic() + self.patience
        tries = 0
        while True:
            tries += 1
            refused: ClientError
            try:
                response = self._send_once(method, url, files, stream, request)
            except httpx.TransportError as error:
                refused = self.unreachable(error)
                delay, again = backoff(tries, None), self.met or tries < CONNECTION_TRIES
            else:
                self.met = True
                if response.is_success:
                    return response
                refused = refusal(response)
                delay, again = backoff(tries, refused.retry_after), refused.worth_another_try
            if not again or time.monotonic() + delay > give_up:
                raise refused
            time.sleep(delay)

    def unreachable(self, error: httpx.TransportError) -> ServerUnreachable:
        return ServerUnreachable(f"No service answers at {self.http.base_url}: {str(error).rstrip('.')}.")

    def _send_once(
        self,
        method: str,
        url: str,
        files: Sequence[tuple[str, Path]],
        stream: bool,
        request: Mapping[str, Any],
    ) -> httpx.Response:
        with ExitStack() as opened:
            parts = [
                (name, (path.name, opened.enter_context(path.open("rb")), "application/octet-stream"))
                for name, path in files
            ]
            built = self.http.build_request(method, url, files=parts or None, **request)
            response = self.http.send(built, stream=stream)
            if stream and not response.is_success:
                response.read()
            return response

    def _create(
        self,
        url: str,
        media: Clip,
        audio: Path | str | None,
        options: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
        **fields: str,
    ) -> httpx.Response:
        """Creates a job from a clip, under a key of its own; a large clip goes ahead as an upload."""
        files = parts_of(media, audio)
        if sum(path.stat().st_size for _, path in files) > UPLOAD_BYTES:
            fields["upload_id"] = self.send("POST", "/v1/uploads", files=files).json()["upload_id"]
            files = []
        values = {name: lines_of(one) if isinstance(one, Path) else one for name, one in options.items()}
        data = {**fields, "params": json.dumps(values)}
        key = {"Idempotency-Key": uuid.uuid4().hex}
        return self.send("POST", url, files=files, data=data, headers={**(headers or {}), **key})


class Job:
    """One job on the service. `record` is what the service last said of it."""

    def __init__(self, client: Client, record: Mapping[str, Any]) -> None:
        self.client = client
        self.record = record
        self.id = str(record["id"])
        self.url = f"/v1/jobs/{self.id}"

    def refresh(self) -> Job:
        self.record = self.client.send("GET", self.url).json()
        return self

    @property
    def status(self) -> str:
        self._look_up()
        return str(self.record["status"])

    @property
    def progress(self) -> Progress:
        self._look_up()
        done = self.record["progress"]
        return Progress(
            self.status,
            done["stage"],
            done["frames_done"],
            done["frames_total"],
            self.record.get("queue_position"),
        )

    def wait(self, on_progress: OnProgress | None = None, timeout: float | None = None) -> Job:
        """Returns when the job has succeeded, raises when it ended otherwise. `timeout` is in seconds;
        `on_progress` hears of each change, and of how the job was found at first."""
        give_up = None if timeout is None else time.monotonic() + timeout
        delay, told = POLL_FIRST, None
        while True:
            self.refresh()
            if on_progress and self.progress != told:
                told = self.progress
                on_progress(told)
            if self.status in FINAL:
                self._raise_unless_succeeded()
                return self
            if give_up is not None and time.monotonic() + delay > give_up:
                raise WaitTimeout(f"Job {self.id} is {self.status} after {timeout:g} s; it goes on.")
            time.sleep(delay)
            delay = min(delay * 1.5, POLL_LONGEST)

    def result(self) -> Result:
        return Result(self, self.client.send("GET", f"{self.url}/result").json())

    def frames(self) -> Iterator[Frame]:
        """Each frame as soon as it is finished, in order; raises after the last one if the job failed."""
        seen, delay = 0, POLL_FIRST
        while True:
            final = self.refresh().status in FINAL  # asked before the frames: none can come after
            before = seen
            try:
                for frame in self._frames_from(seen):
                    seen += 1
                    yield frame
            except httpx.TransportError as error:  # cut off: the next look goes on from here
                if seen == before:
                    raise self.client.unreachable(error) from error
                continue
            if final:
                self._raise_unless_succeeded()
                return
            delay = POLL_FIRST if seen > before else min(delay * 1.5, POLL_LONGEST)
            time.sleep(delay)

    def cancel(self) -> Job:
        """Asks the service to stop; work in hand ends with its window."""
        self.client.send("POST", f"{self.url}/cancel")
        return self.refresh()

    def delete(self) -> None:
        """Clip, masks and record go."""
        self.client.send("DELETE", self.url)

    def save_masks(self, folder: Path | str) -> list[Path]:
        """Writes `masks/000030.png` (0 and 255) for each frame, and `manifest.json`; returns their paths."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            archive = self._download(Path(scratch) / "masks.zip", "application/zip")
            with zipfile.ZipFile(archive) as bundle:
                return [Path(bundle.extract(name, folder)) for name in bundle.namelist()]

    def overlay(self, path: Path | str, timeout: float = RENDER_SECONDS) -> Path:
        """Writes the clip with its masks drawn over it and its own sound, as MP4; a worker makes it first."""
        return self._rendered(Path(path), "video/mp4", timeout)

    def sheet(self, path: Path | str, timeout: float = RENDER_SECONDS) -> Path:
        """Writes a PNG of up to 24 frames with their masks, side by side; a worker makes it first."""
        return self._rendered(Path(path), "image/vnd.earshot.sheet+png", timeout)

    def _rendered(self, path: Path, form: str, timeout: float) -> Path:
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            return self._download(Path(scratch) / "render", form, timeout).replace(path)

    def _download(self, path: Path, form: str, timeout: float = RENDER_SECONDS) -> Path:
        give_up = time.monotonic() + timeout
        while True:
            wait = min(WAIT, max(0, round(give_up - time.monotonic())))
            headers = {"Accept": form, "Prefer": f"wait={wait}"}
            with closing(
                self.client.send("GET", f"{self.url}/result", headers=headers, stream=True)
            ) as answer:
                if answer.status_code != httpx.codes.ACCEPTED:
                    self._save(answer, path)
                    return path
            if time.monotonic() >= give_up:
                raise WaitTimeout(f"The {form} of job {self.id} was not ready within {timeout:g} s.")

    def _save(self, answer: httpx.Response, path: Path) -> None:
        try:
            with path.open("wb") as file:
                for chunk in answer.iter_bytes(COPY_BYTES):
                    file.write(chunk)
        except httpx.TransportError as error:
            raise self.client.unreachable(error) from error

    def _frames_from(self, position: int) -> Iterator[Frame]:
        address = f"{self.url}/frames?from={position}"
        headers = {"Accept": "application/x-ndjson"}
        with closing(self.client.send("GET", address, headers=headers, stream=True)) as response:
            for line in response.iter_lines():
                if line:
                    yield read_frame(json.loads(line))

    def _look_up(self) -> None:
        """Where nothing is known but the id."""
        if "status" not in self.record:
            self.refresh()

    def _raise_unless_succeeded(self) -> None:
        if self.status == "failed":
            raise problem_error(self.record["error"] or {})
        if self.status in {"canceled", "expired"}:
            code, status = ENDED[self.status]
            raise problem_error(
                {"code": code, "status": status, "detail": f"Job {self.id} is {self.status}."}
            )


class Result:
    """The masks of a finished job. `document` is the JSON of the service, whole."""

    def __init__(self, job: Job, document: Mapping[str, Any]) -> None:
        self.job = job
        self.document = document
        self.frames = tuple(read_frame(frame) for frame in document["frames"])

    def save_masks(self, folder: Path | str) -> list[Path]:
        return self.job.save_masks(folder)

    def overlay(self, path: Path | str) -> Path:
        return self.job.overlay(path)


def parts_of(media: Clip, audio: Path | str | None) -> list[tuple[str, Path]]:
    """The files of a request under the names that the service knows them by."""
    sound = [] if audio is None else [("audio", Path(audio))]
    if isinstance(media, str | Path):
        return [("video" if sound else "media", Path(media)), *sound]
    return [*(("frames[]", Path(image)) for image in media), *sound]


def lines_of(path: Path) -> list[str]:
    """The lines of a text file that hold something."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as lines of text: {error}.") from error
    return [line.strip() for line in lines if line.strip()]


def backoff(tries: int, retry_after: float | None) -> float:
    """Not before the service wants us back, else twice as long each time; spread, lest all come at once."""
    delay = min(FIRST_DELAY * 2.0 ** (tries - 1), LONGEST_DELAY)
    if retry_after is None:
        return delay * random.uniform(0.5, 1.0)
    return retry_after + delay * random.uniform(0.0, 1.0)
