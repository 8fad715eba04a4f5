"""Every key of the service in Redis, and the Lua scripts that change them: one atomic step each.

The scripts get these names as locals, and what they share from `lua/prelude.lua`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import redis

PREFIXES = {  # of keys; a key of one thing ends with its id
    "JOB": "avs:job:",  # hash: the record; `avs:job:<id>`
    "PLAN": "avs:plan:",  # hash: window -> its frame times, JSON
    "WINDOWS": "avs:windows:",  # hash: `<window>:starts|lease|sends|blob|frames`
    "FLIGHT": "avs:flight:",  # sorted set: windows sent and uncommitted, by last sign of life
    "EVENTS": "avs:events:",  # stream: what the SSE endpoint replays
    "TENANT": "avs:tenant:",  # sorted set: a tenant's jobs by creation
    "HELD": "avs:held:",  # set: a tenant's unfinished jobs, for its share of the queue
    "IDEMPOTENCY": "avs:idempotency:",  # hash: the job and body of one Idempotency-Key
    "NAME": "avs:name:",  # string by tenant and name: the id of the job that was made under this name
    "ACTIVE": "avs:active",  # sorted set: unfinished jobs by creation
    "QUEUED": "avs:queued",  # sorted set: jobs not begun, in the order they will begin
    "DEADLINES": "avs:deadlines",  # sorted set: unfinished jobs with a deadline
    "EXPIRY": "avs:expiry",  # sorted set: finished jobs by the end of their result
    "GONE": "avs:gone:",  # string: the tenant of a job that was swept, so that it is 410, not 404
    "GARBAGE": "avs:garbage",  # sorted set: storage prefixes to delete, by when that was decided
    "COUNTS": "avs:counts",  # hash: jobs ever finished, by status
    "CLIP": "avs:clip:",  # string: an upload, JSON
    "CLIPS": "avs:clips",  # sorted set: uploads by expiry
    "CLIP_JOBS": "avs:clip-jobs:",  # set: jobs that still need an upload
    "WORKERS": "avs:workers",  # sorted set: worker processes by last sign of life
    "THREADS": "avs:worker-threads",  # hash: worker -> its threads
    "WORKER": "avs:worker:",  # string: what a worker says of itself, JSON
    "RENDER": "avs:render:",  # string by job and form: `asked`, or the problem of a render that failed
    "RENDER_STARTS": "avs:render-starts:",  # string by job and form: how often it was begun
    "RATE": "avs:rate:",  # string: when everything that an API key has taken will have leaked away
}
MESSAGES = "avs:mq"  # what Dramatiq's own keys begin with
CHANGED = "avs:changed"  # channel: `<id> <status>` of each job whose record changed
STOPPED = "avs:stopped"  # channel: the id of each job that must not go on
BELL = "avs:bell"  # channel: the name of a queue that got a message
LUA = Path(__file__).parent / "lua"
STEP = "{prelude}\nlocal function step()\n{body}\nend\nreturn {{step() or false, reached}}"
BELT_SECONDS = 7 * 24 * 3600  # keys end by themselves even if no sweeper ever runs again
EVENTS_KEPT = 1000
Reached = Callable[[str, str], None]


class Steps:
    """The scripts by file name, ready to run; one round trip each, and reloaded by itself after a restart.

    `reached` is told of every job that a step of this process brings to a status: the status, the strategy.
    """

    def __init__(
        self,
        client: redis.Redis,
        reached: Reached = lambda status, strategy: None,  # noqa: ARG005 (nobody listens)
    ) -> None:
        names = [*PREFIXES.items(), ("CHANGED", CHANGED), ("STOPPED", STOPPED)]
        prelude = "".join(f"local {name} = '{value}'\n" for name, value in names)
        prelude += f"local BELT, EVENTS_KEPT = {BELT_SECONDS}, {EVENTS_KEPT}\n"
        prelude += (LUA / "prelude.lua").read_text()
        self.reached = reached
        self._scripts: Mapping[str, Any] = {
            path.stem: client.register_script(STEP.format(prelude=prelude, body=path.read_text()))
            for path in LUA.glob("*.lua")
            if path.stem != "prelude"
        }

    def __call__(self, step: str, *values: str | float) -> Any:  # noqa: ANN401 (each script says its answer)
        answer, reached = self._scripts[step](args=values)
        for status, strategy in zip(reached[::2], reached[1::2], strict=True):
            self.reached(status, strategy)
        return answer
