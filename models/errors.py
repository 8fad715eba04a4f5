"""The one tree of errors that `models` raises; each message is a sentence a user can act on.

EarshotError                    status   what the caller should do
  UnsupportedMedia               415     send another container or codec
  UndecodableMedia               422     repair or re-encode the file
  MediaTooLarge                  413     send less: the message names the limit and the value
  InvalidOption                  422     change the option that the message names
  WeightsMissing                 503     fetch the weights with the command in the message
  WeightsInvalid                 503     replace the checkpoint: wrong hash, missing key, code in a pickle
  DatasetInvalid                 422     mend the file or folder that the message names
  OutOfDeviceMemory              507     send fewer or smaller frames
"""


class EarshotError(Exception):
    """Base of all: `status` is the HTTP status that answers it, `code` its stable name."""

    status = 500
    code = "internal_error"


class UnsupportedMedia(EarshotError):
    """A container, codec or protocol outside the allow-list."""

    status = 415
    code = "unsupported_media"


class UndecodableMedia(EarshotError):
    """A file of an allowed kind that cannot be read: truncated, empty or corrupt."""

    status = 422
    code = "undecodable_media"


class MediaTooLarge(EarshotError):
    """A limit is exceeded; `limit` names it, and the message gives both values."""

    status = 413
    code = "media_too_large"

    def __init__(self, limit: str, allowed: float, actual: float, unit: str) -> None:
        super().__init__(
            f"The {limit} of this media is {written(actual)} {unit}; the limit is {written(allowed)} {unit}."
        )
        self.limit, self.allowed, self.actual, self.unit = limit, allowed, actual, unit

    def __reduce__(self) -> tuple[type, tuple[str, float, float, str]]:
        """It crosses a process boundary: the decoder runs in a child."""
        return type(self), (self.limit, self.allowed, self.actual, self.unit)


def written(value: float) -> str:
    """A number in a sentence, to the thousandth: 16 777 216."""
    return f"{round(value, 3):,.12g}".replace(",", " ")


class InvalidOption(EarshotError):
    """An option's value makes no sense for this clip or strategy."""

    status = 422
    code = "invalid_option"


class WeightsMissing(EarshotError):
    """A network's weights, or the packages that run it, are not installed."""

    status = 503
    code = "weights_missing"


class WeightsInvalid(EarshotError):
    """A checkpoint is not what it should be, or not safe to read."""

    status = 503
    code = "weights_invalid"


class DatasetInvalid(EarshotError):
    """A data set's folder or file is missing, of another layout or corrupt; the message names it."""

    status = 422
    code = "dataset_invalid"


class TrainingDiverged(EarshotError):
    """A loss or a gradient is not a number any more; no request meets this."""

    code = "training_diverged"


class OutOfDeviceMemory(EarshotError):
    """The batch does not fit on the device, even halved."""

    status = 507
    code = "out_of_device_memory"
