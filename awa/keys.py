"""Ordering keys: the hashes that say to which shard and to which partition a key belongs.

Both are part of the format: producers in other languages and of other releases must send a key where these do. A key's shard
is taken from its hash, its partition from that hash mixed once more. Were both taken from one number, a partition would see
only some of the shards: of four partitions with four shards each would use one.
"""

from __future__ import annotations

from typing import Final

from awa.errors import InvalidJob

MAX_ORDERING_KEY_BYTES: Final = 1024

_MASK: Final = 2**64 - 1
_SEED: Final = 14695981039346656037
_PRIME: Final = 1099511628211
_PARTITION_DOMAIN: Final = 0x9D4D1B2F53A70C91


def ordering_key_hash64(key: str | bytes) -> int:
    """The 64-bit hash of a key: for every byte multiply, then add. Text counts as its UTF-8 bytes.

    Raises:
        InvalidJob: the key is neither text nor bytes, or is text with a lone surrogate.

    >>> ordering_key_hash64("")
    14695981039346656037
    """
    value = _SEED
    for byte in _key_bytes(key):
        value = (value * _PRIME + byte) & _MASK
    return value


def partition_hash64(key: str | bytes) -> int:
    """The hash of a key that chooses its partition: independent of the one that chooses its shard.

    >>> partition_hash64("customer-42") != ordering_key_hash64("customer-42")
    True
    """
    return mix_for_partition(ordering_key_hash64(key))


def partition_for_ordering_key(key: str | bytes, partitions: int) -> int:
    """The partition of a key; 0 where there is only one.

    >>> partition_for_ordering_key("customer-42", 1)
    0
    """
    return partition_of_hash(ordering_key_hash64(key), partitions)


def shard_for_ordering_key(key: str | bytes, shards: int) -> int:
    """The enqueue shard of a key; 0 where there is only one.

    >>> shard_for_ordering_key("customer-42", 1)
    0
    """
    return shard_of_hash(ordering_key_hash64(key), shards)


def mix_for_partition(hash64: int) -> int:
    """The finaliser of SplitMix64 over a key's hash in the domain of partitions."""
    value = hash64 ^ _PARTITION_DOMAIN
    value ^= value >> 30
    value = (value * 0xBF58476D1CE4E5B9) & _MASK
    value ^= value >> 27
    value = (value * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def partition_of_hash(hash64: int, partitions: int) -> int:
    """The partition of a key whose `ordering_key_hash64` is known."""
    return 0 if partitions <= 1 else mix_for_partition(hash64) % partitions


def shard_of_hash(hash64: int, shards: int) -> int:
    """The shard of a key whose `ordering_key_hash64` is known."""
    return 0 if shards <= 1 else hash64 % shards


def check_ordering_key(key: object) -> int:
    """The hash of a key that somebody gave for a job.

    Raises:
        InvalidJob: neither text nor bytes, or more than 1024 bytes.
    """
    if not isinstance(key, str | bytes):
        raise InvalidJob("ordering_key", f"must be text or bytes, not {type(key).__name__}")
    data = _key_bytes(key)
    if len(data) > MAX_ORDERING_KEY_BYTES:
        raise InvalidJob("ordering_key", f"{len(data):,} bytes, the limit is {MAX_ORDERING_KEY_BYTES:,}")
    return ordering_key_hash64(data)


def _key_bytes(key: object) -> bytes:
    if isinstance(key, str):
        try:
            return key.encode()
        except UnicodeEncodeError as error:
            raise InvalidJob("ordering_key", f"contains a lone surrogate at character {error.start}") from None
    if isinstance(key, bytes):
        return key
    raise InvalidJob("ordering_key", f"must be text or bytes, not {type(key).__name__}")
