"""The options of a request: from JSON, form fields and query parameters to one checked set of values.

Three layers: what every strategy takes (`CommonParams`), the strategy's own frozen dataclass, and the preset
whose values stand where the request says nothing. Unknown names are refused: silence hides typos.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from models.media import Sampling
from models.strategies import Strategy
from service.errors import FieldError, Refusal, invalid
from service.masks import Outputs

METADATA_BYTES = 4096
NESTING = 32  # levels of JSON in a request
DEADLINE_SECONDS = 7 * 24 * 3600.0
T = TypeVar("T")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
UNKNOWN = {"extra_forbidden", "unexpected_keyword_argument"}
# Of Python's words, those of JSON.
SPOKEN = {
    "tuple_type": 'Input should be a list, in JSON ["one", "two"].',
    "dataclass_type": "Input should be an object.",
}


def seconds_of(value: Any) -> Any:  # noqa: ANN401 (what is neither text nor a number is for pydantic to refuse)
    """`10m` as 600.0; a plain number is seconds."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*(ms|s|m|h|d)?", value.strip())
    if not found:
        raise ValueError("Write a deadline as seconds, or as a number with ms, s, m, h or d: `10m`.")
    return float(found[1]) * UNITS[found[2] or "s"]


Deadline = Annotated[
    Annotated[float, Field(gt=0, le=DEADLINE_SECONDS)] | None,
    BeforeValidator(seconds_of, json_schema_input_type=float | str | None),
]


class CommonParams(BaseModel):
    """What every strategy takes."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        validate_default=False,
    )

    preset: Literal["best", "paper"] = "best"
    """`best` is what we believe right; `paper` reproduces the published behaviour, quirks and all."""
    fps: Annotated[float, Field(gt=0, le=240)] = 1.0
    """Frames to segment for each second of the clip."""
    start: Annotated[float, Field(ge=0)] = 0.0
    """Where to begin, in seconds of the clip."""
    end: Annotated[float, Field(gt=0)] | None = None
    """Where to end, in seconds of the clip; null is its end."""
    max_frames: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """No more than so many frames, counted from `start`."""
    mode: Literal["uniform", "avsbench"] = "uniform"
    """`avsbench` takes frames and sound as the AVSBench data set was cut."""
    outputs: Outputs = Outputs()
    """What each frame of the answer holds."""
    deadline: Deadline = None
    """Seconds, or a number with a unit (`90s`, `10m`, `2h`): a job not begun by then is never run."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    """Anything of yours, up to 4 KiB of JSON; it comes back with the job."""

    @field_validator("metadata")
    @classmethod
    def _metadata(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            size = len(json.dumps(value, allow_nan=False))
        except ValueError:
            raise ValueError("The metadata holds a number that JSON cannot write.") from None
        if size > METADATA_BYTES:
            raise ValueError(f"The metadata has {size} bytes of JSON; the limit is {METADATA_BYTES}.")
        return value

    @model_validator(mode="after")
    def _stretch(self) -> CommonParams:
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"`end` ({self.end:g} s) must come after `start` ({self.start:g} s).")
        return self


COMMON = TypeAdapter(CommonParams)


@dataclass(frozen=True)
class JobOptions:
    """A request's options, checked. `options` is the strategy's own, as JSON, with every value filled in."""

    sampling: Sampling
    outputs: dict[str, Any]
    options: dict[str, Any]
    deadline: float | None = None  # seconds from now
    metadata: dict[str, Any] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)  # what the client sent, to tell requests apart


def read_options(strategy: Strategy, document: Mapping[str, Any]) -> JobOptions:
    """Check the merged options of a request against the strategy."""
    mine = {name: value for name, value in document.items() if name in CommonParams.model_fields}
    own = {name: value for name, value in document.items() if name not in mine}
    schema = params_schema(strategy)
    common = validated(COMMON, mine, schema)
    adapter = adapter_of(strategy)
    defaults = adapter.dump_python(strategy.presets[common.preset], mode="json")
    options = validated(adapter, overlaid(defaults, own), schema)
    return JobOptions(
        sampling=Sampling(common.fps, common.start, common.end, common.max_frames, common.mode),
        outputs=asdict(common.outputs),
        options=adapter.dump_python(options, mode="json"),
        deadline=common.deadline,
        metadata=common.metadata,
        given=dict(document),
    )


def adapter_of(strategy: Strategy) -> TypeAdapter[Any]:
    """What reads and writes the strategy's own options."""
    options: Any = strategy.options
    return made_adapter(options)


def params_schema(strategy: Strategy) -> Mapping[str, Any]:
    """JSON schema of `params` for one strategy: what it takes itself, and what every strategy takes."""
    options: Any = strategy.options
    return made_schema(options)


@cache
def made_adapter(options: Any) -> TypeAdapter[Any]:  # noqa: ANN401 (a type)
    """Made once: that takes milliseconds, and reading a request's options microseconds."""
    return TypeAdapter(options)


@cache
def made_schema(options: Any) -> Mapping[str, Any]:  # noqa: ANN401 (a type)
    own = made_adapter(options).json_schema()
    common = CommonParams.model_json_schema()
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {**own.get("properties", {}), **common["properties"]},
        "$defs": {**own.get("$defs", {}), **common.get("$defs", {})},
    }


def merged(strategy: Strategy, pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """One document of `params`, read already, and every field; a field wins over `params`, a later over an
    earlier. Dots nest (`thresholds.mask=0.4`); a list is a repeated field, JSON in brackets, or a text of
    lines, as `curl -F "captions=<lines.txt"` sends a file.
    """
    pairs = list(pairs)
    document: dict[str, Any] = {}
    for name, value in pairs:
        if name == "params":
            document = overlaid(document, value)
    schema = params_schema(strategy)
    repeated: dict[str, list[Any]] = {}
    for name, text in pairs:
        if name != "params":
            repeated.setdefault(name, []).append(value_of(text))
    for name, values in repeated.items():
        path = name.split(".")
        if len(path) > NESTING or too_deep(values):
            raise invalid(f"/{path[0]}", f"This nests deeper than {NESTING} levels, the limit.")
        value = in_lines(values) if takes_list(schema, path) and isinstance(values[0], str) else values[-1]
        document = overlaid(document, nested(path, value))
    return document


def takes(strategy: Strategy, pairs: Iterable[tuple[str, Any]]) -> bool:
    """Whether the strategy has every option that a request names; their values are another question."""
    schema = params_schema(strategy)
    return has_all(schema, schema, merged(strategy, pairs))


def has_all(schema: Mapping[str, Any], node: Mapping[str, Any], document: Mapping[str, Any]) -> bool:
    """Whether every name of the document, and of the objects in it, is a property of the node."""
    properties = resolved(schema, node).get("properties")
    if properties is None:
        return True  # anything goes: `metadata`
    return all(
        name in properties and (not isinstance(value, Mapping) or has_all(schema, properties[name], value))
        for name, value in document.items()
    )


def in_lines(values: Iterable[Any]) -> list[Any]:
    """The values of a list; a text of several lines is as many of them, without those that are empty."""
    listed: list[Any] = []
    for value in values:
        if isinstance(value, str) and "\n" in value:
            listed += [line.strip() for line in value.splitlines() if line.strip()]
        else:
            listed.append(value)
    return listed


def params_of(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Refusal("malformed_request", f"`params` is not JSON: {error}.") from None
    if not isinstance(document, dict):
        raise invalid("/params", "`params` must be a JSON object.")
    if too_deep(document):
        raise invalid("/params", f"This nests deeper than {NESTING} levels, the limit.")
    return document


def too_deep(value: Any) -> bool:  # noqa: ANN401
    """Whether JSON nests deeper than we allow; level by level, since recursion is what the limit is for."""
    level = [value]
    for _ in range(NESTING):
        level = [child for one in level for child in children(one)]
    return bool(level)


def children(value: Any) -> Iterable[Any]:  # noqa: ANN401
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def value_of(text: str) -> Any:  # noqa: ANN401
    """A field's text: JSON where it looks like a list, an object or null; else text, for pydantic to read."""
    stripped = text.strip()
    if stripped[:1] in {"[", "{"} or stripped == "null":
        try:
            return json.loads(stripped, parse_constant=refuse_constant)
        except (ValueError, RecursionError):
            return text
    return text


def nested(path: Sequence[str], value: Any) -> dict[str, Any]:  # noqa: ANN401
    """`["thresholds", "mask"], 0.4` as `{"thresholds": {"mask": 0.4}}`."""
    for name in reversed(path):
        value = {name: value}
    return dict(value)


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `above` over those of `below`, object by object."""
    document = dict(below)
    for name, value in above.items():
        under = document.get(name)
        if isinstance(value, Mapping) and isinstance(under, Mapping):
            document[name] = overlaid(under, value)
        else:
            document[name] = value
    return document


def takes_list(schema: Mapping[str, Any], path: Sequence[str]) -> bool:
    """Whether the schema has an array at this place."""
    node = node_at(schema, path)
    choices = [node, *(resolved(schema, choice) for choice in node.get("anyOf", ()))]
    return any(choice.get("type") == "array" for choice in choices)


def node_at(schema: Mapping[str, Any], path: Sequence[int | str]) -> Mapping[str, Any]:
    """What the schema says of this place; empty where it says nothing."""
    node = schema
    for name in path:
        node = resolved(schema, node.get("properties", {}).get(name, {}))
    return node


def resolved(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    name = node.get("$ref", "").rpartition("/")[2]
    found: Mapping[str, Any] = schema["$defs"][name] if name else node
    return found


def validated(adapter: TypeAdapter[T], value: Mapping[str, Any], schema: Mapping[str, Any]) -> T:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise refusal(error, schema) from None


def refusal(error: ValidationError, schema: Mapping[str, Any]) -> Refusal:
    """Pydantic's findings as one problem that points at each field, and names those there are beside it."""
    found = {
        pointer(one["loc"]): message(
            one["type"], one["msg"], [*node_at(schema, one["loc"][:-1]).get("properties", ())]
        )
        for one in error.errors(include_url=False, include_input=False)
    }
    fields = tuple(FieldError(place, text) for place, text in found.items())
    return Refusal(
        "invalid_option", " ".join(f"{one.pointer}: {one.message}" for one in fields[:3]), errors=fields
    )


def message(kind: str, text: str, known: Sequence[str]) -> str:
    if kind in UNKNOWN:
        return (
            f"There is no such option here; there {'are' if known[1:] else 'is'} {', '.join(known)}."
            if known
            else "There is no such option."
        )
    text = text.removeprefix("Value error, ").replace("Tuple should", "A list should")
    return SPOKEN.get(kind, text.rstrip(".") + ".")


def pointer(location: Iterable[int | str]) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in location) or "/"
