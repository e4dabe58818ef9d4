"""Which requests a canary answers: a share by chance, or a share of the callers, each always with the same version.

Every process of every server gives a caller the same place in [0, 1), today and after a restart, and the canary has
those below its weight: a larger weight takes callers over from the stable version and gives none back.

Layer L2; imports msgspec and what reads a bundle.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Literal, Self

import msgspec

from fairlead import config
from fairlead.errors import ConfigError, ServeError
from fairlead.repository.deployments import Deployment
from fairlead.schema import Scalar, Schema

# What float64 can tell apart below 1.
_PLACES = 2**53


class Sticky(msgspec.Struct, frozen=True):
    """What a caller is known by.

    Parameters
    ----------
    kind : where it stands in a request.
    name : of the header (in small letters), the cookie or the feature.
    """

    kind: Literal["header", "cookie", "feature"]
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``header:x-user-id``, ``cookie:session`` or ``feature:customer_id``.

        Raises
        ------
        ConfigError
            When it is none of these.
        """
        try:
            kind, _, name = msgspec.convert(text, config.Sticky).partition(":")
        except msgspec.ValidationError as error:
            raise ConfigError(f"sticky: expected header:NAME, cookie:NAME or feature:NAME, got {text!r}") from error
        return msgspec.convert({"kind": kind, "name": name.lower() if kind == "header" else name}, cls)


def feature_key(value: Scalar | datetime | None) -> bytes | None:
    """Give the key of a caller who is known by a feature, None for one without a value.

    A value has one key whatever it came as: 7 and 7.0, a time in any zone.
    """
    if value is None:
        return None
    if isinstance(value, datetime):
        value = value.astimezone(UTC).isoformat()
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).encode(errors="surrogatepass")


def bucket(key: bytes, salt: str) -> float:
    """Give a caller's place in [0, 1), which is the same everywhere and for good.

    Parameters
    ----------
    key : the value that the caller is known by.
    salt : what the traffic is parted for, as a model's name: places under two salts have nothing in common.
    """
    digest = blake2b(key, digest_size=8, key=_seed(salt)).digest()
    return (int.from_bytes(digest, "big") >> 11) / _PLACES


def goes_to_canary(key: bytes | None, weight: float, salt: str) -> bool:
    """Say whether the canary answers a request.

    Parameters
    ----------
    key : what the caller is known by; None leaves it to chance.
    weight : the canary's share, from 0 to 1.
    salt : as of `bucket`.
    """
    if weight <= 0.0:
        return False
    return (random.random() if key is None else bucket(key, salt)) < weight


@lru_cache(maxsize=1024)
def _seed(salt: str) -> bytes:
    return blake2b(salt.encode(), digest_size=32).digest()


def check_sticky(deployment: Deployment, schema: Schema) -> None:
    """Refuse to part a model's callers by a feature that it does not have; raises as `place_of`.

    Parameters
    ----------
    schema : of the stable version.
    """
    if deployment.canary is not None and deployment.sticky is not None:
        sticky = Sticky.parse(deployment.sticky)
        if sticky.kind == "feature":
            place_of(sticky.name, schema)


def place_of(feature: str, schema: Schema) -> int:
    """Give a feature's place in a row.

    Raises
    ------
    ServeError
        When there is no such feature.
    """
    names = [one.name for one in schema.features]
    if feature not in names:
        raise ServeError(f"sticky: feature:{feature}: expected one of the model's features {', '.join(names)}")
    return names.index(feature)
