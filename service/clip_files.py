"""The files of a clip on this machine, as media."""

from __future__ import annotations

from models.media import Media
from service.clips import Clip
from service.errors import Refusal
from service.storage import Storage


def media_of(clip: Clip, storage: Storage) -> Media:
    """Paths of the clip's parts, fetched where the store is elsewhere. A Refusal if they are gone."""
    try:
        paths = {key: storage.local_copy(key) for key in (clip.video, clip.audio, *clip.frames) if key}
    except FileNotFoundError:
        paths = {}
    if not paths or not all(path.exists() for path in paths.values()):
        raise Refusal("expired", "The clip of this job is gone; send it again.")
    return Media(
        video=paths[clip.video] if clip.video else None,
        audio=paths[clip.audio] if clip.audio else None,
        frames=tuple(paths[key] for key in clip.frames),
    )
