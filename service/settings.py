"""Every setting of the three processes, and the only place that reads the environment.

Each field is set by `EARSHOT_<NAME>` (`EARSHOT_WORKER_THREADS=8`); the two that other software knows too also
answer to `REDIS_URL` and `STORAGE_URL`. Lists are JSON or comma separated.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MEBIBYTE = 1024 * 1024
HOUR = 3600.0
KEY_ENTRY = re.compile("[^:]+:[0-9a-fA-F]{64}")


class Settings(BaseSettings):
    """Defaults fit one machine. Times are seconds, sizes bytes, unless a name says otherwise."""

    model_config = SettingsConfigDict(
        env_prefix="EARSHOT_",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        pattern="^(rediss?|unix)://.",
        validation_alias=AliasChoices("EARSHOT_REDIS_URL", "REDIS_URL"),
    )
    """Redis 6.2 or newer, append-only file on, `noeviction`; `unix:///path?db=0` works too."""
    storage_url: str = Field(
        default="file://" + str(Path(tempfile.gettempdir()) / "earshot"),
        min_length=1,
        validation_alias=AliasChoices("EARSHOT_STORAGE_URL", "STORAGE_URL"),
    )
    """Where uploads and results are: any fsspec URL (`file:///srv/earshot`, `s3://bucket/prefix`)."""
    scratch_dir: Path = Path(tempfile.gettempdir()) / "earshot-scratch"
    """Uploads on their way in and copies of remote media; losing it loses nothing."""
    weights_dir: Path = Path.home() / ".cache" / "earshot"
    """The folder of checkpoints."""
    supplier: Literal["transformers", "official"] = "transformers"
    """Whose code runs SAM, Grounding DINO and CLAP; `official` is segment-anything, groundingdino-py and
    laion-clap, in the environment that `make .venv-official/ready` builds."""
    strategies: Annotated[tuple[str, ...], NoDecode] = ("all",)
    """Names of the strategies that this worker loads, or `all`."""
    registry: str = "models.strategies"
    """The module whose STRATEGIES mapping lists them."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:1`."""
    torch_threads: int = Field(default=0, ge=0)
    """CPU threads of one network call; 0 leaves the choice to torch."""

    worker_threads: int = Field(default=4, ge=1, le=256)
    """Windows in work at once in one worker process."""
    worker_metrics_port: int = Field(default=0, ge=0, le=65535)
    """The worker's own /metrics; 0 turns it off."""
    worker_metrics_host: str = "127.0.0.1"
    """The address that port listens on."""
    batch_frames: int = Field(default=16, ge=1)
    """Frames of concurrent windows that one network call may take."""
    batch_wait_ms: float = Field(default=5.0, ge=0)
    """How long a call waits for company; a lone call never waits."""
    window_cache_bytes: int = Field(default=256 * MEBIBYTE, ge=0)
    """Decoded windows that a worker keeps for the next run on the same upload."""

    max_upload_bytes: int = Field(default=256 * MEBIBYTE, ge=1)
    """Of one request; more is refused while it arrives."""
    interactive_seconds: float = Field(default=60.0, gt=0)
    """A clip up to this length may be waited for, and goes ahead of longer ones."""
    job_seconds: float = Field(default=7200.0, gt=0)
    """The longest clip."""
    max_pixels: int = Field(default=4096 * 4096, ge=1)
    """Of one frame."""
    max_frames: int = Field(default=7200, ge=1)
    """Sampled frames of one job."""
    max_tracks: int = Field(default=16, ge=1)
    """Streams of one file."""

    queue_jobs: int = Field(default=256, ge=1)
    """Jobs neither finished nor refused, all tenants together."""
    queue_share: float = Field(default=1.0, gt=0, le=1)
    """The part of `queue_jobs` that one tenant may hold."""
    windows_in_flight: int = Field(default=4, ge=1)
    """Messages of one job at once; raised by itself to twice the worker threads alive, see jobs.py."""
    max_attempts: int = Field(default=3, ge=1)
    """How often a window is begun before its job is a dead letter."""
    lease_seconds: float = Field(default=30.0, gt=0)
    """A window without sign of life for this long is sent again."""
    heartbeat_seconds: float = Field(default=5.0, gt=0, le=7)
    """How often a worker, and each window in its work, gives a sign of life; one that gives none for 15 s is
    gone."""
    redelivery_seconds: float = Field(default=10.0, gt=0)
    """A worker silent for this long is dead to the message broker, which gives its messages to others."""
    reconcile_seconds: float = Field(default=5.0, gt=0)
    """How often somebody looks for windows that were lost."""
    sweep_seconds: float = Field(default=15.0, gt=0)
    """How often expired jobs and uploads are deleted."""
    drain_seconds: float = Field(default=30.0, ge=0)
    """From SIGTERM to the end of the process: windows in work that take longer are handed back."""
    result_ttl: float = Field(default=24 * HOUR, gt=0, le=6 * 24 * HOUR)
    """A result is kept this long after its job has ended; records last a week, so six days at most."""
    upload_ttl: float = Field(default=1 * HOUR, gt=0)
    """An upload may be used this long, and is kept while a job needs it."""
    idempotency_ttl: float = Field(default=24 * HOUR, gt=0)
    """An `Idempotency-Key` is remembered this long."""

    decode_seconds: float = Field(default=60.0, gt=0)
    """Wall clock and CPU time of one call of the decoder."""
    decode_bytes: int = Field(default=2048 * MEBIBYTE, ge=64 * MEBIBYTE)
    """Address space of the decoder's process, above what it has when it starts."""

    api_keys: Annotated[tuple[str, ...], NoDecode] = ()
    """`tenant:sha256hex` of each key; empty turns keys off."""
    requests_per_minute: int = Field(default=0, ge=0)
    """Per key; 0 is no limit."""
    host: str = "127.0.0.1"
    """The address that the API listens at."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Its port."""
    wait_seconds: float = Field(default=30.0, ge=0)
    """How long a synchronous call waits unless its `Prefer` header says."""
    max_wait_seconds: float = Field(default=60.0, ge=0)
    """The longest wait that a `Prefer` header may ask for."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """`DEBUG`, `INFO`, `WARNING` or `ERROR`."""

    @field_validator("api_keys")
    @classmethod
    def _hashed(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        """A key that was written as it is would open nothing, and stand in the environment."""
        if any(KEY_ENTRY.fullmatch(entry) is None for entry in entries):
            raise ValueError("Write each key as `tenant:` and its sha256, 64 hexadecimal digits.")
        return entries

    @field_validator("log_level", mode="before")
    @classmethod
    def _capitals(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("strategies", "api_keys", mode="before")
    @classmethod
    def _commas(cls, value: object) -> object:
        """`a,b` is a list of two; the environment knows only strings."""
        if isinstance(value, str):
            return tuple(
                part.strip() for part in value.strip("[]").replace('"', "").split(",") if part.strip()
            )
        return value
