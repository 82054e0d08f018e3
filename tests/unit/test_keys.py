"""Where an ordering key belongs: the numbers that every producer must agree on."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest

from awa.errors import InvalidJob
from awa.keys import (
    MAX_ORDERING_KEY_BYTES,
    check_ordering_key,
    ordering_key_hash64,
    partition_for_ordering_key,
    partition_hash64,
    shard_for_ordering_key,
)

# key, ordering_key_hash64, partition_hash64, partition of 2, 7 and 32767, shard of 2, 4 and 64. Computed in C, in uint64_t:
#
#   h = 14695981039346656037; for each byte b: h *= 1099511628211; h += b;
#   x = h ^ 0x9d4d1b2f53a70c91; x ^= x >> 30; x *= 0xbf58476d1ce4e5b9; x ^= x >> 27; x *= 0x94d049bb133111eb; x ^= x >> 31;
Vector = tuple[str | bytes, int, int, tuple[int, int, int], tuple[int, int, int]]
VECTORS: list[Vector] = [
    (b"", 14695981039346656037, 12892176949946654770, (0, 4, 18477), (1, 1, 37)),
    ("", 14695981039346656037, 12892176949946654770, (0, 4, 18477), (1, 1, 37)),
    ("a", 12638153115695167552, 6661374579423403285, (1, 5, 30952), (0, 0, 0)),
    (" ", 12638153115695167487, 11944346829179376901, (1, 2, 27232), (1, 3, 63)),
    ("customer-42", 695220319317454988, 2415934538594125323, (1, 5, 23532), (0, 0, 12)),
    ("user:1", 17135990037601438231, 5977445460046162952, (0, 3, 7227), (1, 3, 23)),
    ("user:2", 17135990037601438232, 12585723071898334315, (1, 6, 26480), (0, 0, 24)),
    ("größe/日本/😀", 9626965571536986467, 13193054062335410588, (0, 3, 15746), (1, 3, 35)),
    (b"\x00", 12638153115695167455, 12458365038576274788, (0, 5, 5514), (1, 3, 31)),
    (b"\x00\xff\xfe", 15658471751003726338, 9616097192786767815, (1, 6, 31891), (0, 2, 2)),
    ("0" * 300, 11528619349949502357, 1111279964411281237, (1, 6, 16680), (1, 1, 21)),
    (bytes(range(256)), 12973344705517933477, 5683724371048413013, (1, 2, 5714), (1, 1, 37)),
    ("3f2504e0-4f89-11d3-9a0c-0305e82c3301", 10635469523079109776, 1108957748717643760, (0, 5, 30287), (0, 0, 16)),
    (
        bytes.fromhex("e4d909c290d0fb1ca068ffaddf22cbd0"),
        8402701232745785574,
        927273462500973027,
        (1, 6, 22035),
        (0, 2, 38),
    ),
    (
        bytes.fromhex("9b74c9897bac770ffc029102a200c5de2f6b"),
        17858423281361877693,
        3912749614178691100,
        (0, 3, 24328),
        (1, 1, 61),
    ),
]


@pytest.mark.parametrize(("key", "hashed", "mixed", "partitions", "shards"), VECTORS, ids=lambda value: repr(value)[:30])
def test_a_key_belongs_where_every_release_has_sent_it(
    key: str | bytes, hashed: int, mixed: int, partitions: tuple[int, int, int], shards: tuple[int, int, int]
) -> None:
    assert ordering_key_hash64(key) == hashed
    assert partition_hash64(key) == mixed
    assert tuple(partition_for_ordering_key(key, n) for n in (2, 7, 32767)) == partitions
    assert tuple(shard_for_ordering_key(key, n) for n in (2, 4, 64)) == shards


@pytest.mark.parametrize("n", [1, 0, -3])
def test_where_there_is_one_place_every_key_goes_there(n: int) -> None:
    assert {partition_for_ordering_key(key, n) for key, *_ in VECTORS} == {0}
    assert {shard_for_ordering_key(key, n) for key, *_ in VECTORS} == {0}


KEYS = [f"customer-{n}" for n in range(20_000)]


def chi_square(seen: Counter[object], cells: int) -> float:
    """How far counts are from even; its mean is `cells` - 1 where they are even but for chance."""
    expected = len(KEYS) / cells
    return sum((seen[cell] - expected) ** 2 / expected for cell in seen) + expected * (cells - len(seen))


@pytest.mark.parametrize(("partitions", "shards"), list(product([2, 4, 7, 16], [2, 4, 5, 16])))
def test_every_partition_sees_every_shard_alike(partitions: int, shards: int) -> None:
    seen: Counter[object] = Counter(
        (partition_for_ordering_key(key, partitions), shard_for_ordering_key(key, shards)) for key in KEYS
    )
    cells = partitions * shards
    # Six standard deviations of the chi-square distribution: one number for both would be thousands away.
    assert chi_square(seen, cells) < (cells - 1) + 6 * (2 * (cells - 1)) ** 0.5
    by_partition: Counter[object] = Counter(partition_for_ordering_key(key, partitions) for key in KEYS)
    assert chi_square(by_partition, partitions) < (partitions - 1) + 6 * (2 * (partitions - 1)) ** 0.5


def test_one_hash_for_both_would_leave_most_cells_empty() -> None:
    """What the second hash is for, and that the test above can fail."""
    seen: Counter[object] = Counter((ordering_key_hash64(key) % 4, shard_for_ordering_key(key, 4)) for key in KEYS)
    assert len(seen) == 4
    assert chi_square(seen, 16) > 1000


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (7, "must be text or bytes, not int"),
        (None, "must be text or bytes, not NoneType"),
        ("\ud800", "a lone surrogate at character 0"),
        ("k" * (MAX_ORDERING_KEY_BYTES + 1), "1,025 bytes, the limit is 1,024"),
        ("ü" * 513, "1,026 bytes, the limit is 1,024"),
    ],
)
def test_what_is_no_key_is_refused(key: object, reason: str) -> None:
    with pytest.raises(InvalidJob, match=reason) as refused:
        check_ordering_key(key)
    assert refused.value.field == "ordering_key"


def test_a_key_at_the_limit_is_taken() -> None:
    assert check_ordering_key("k" * MAX_ORDERING_KEY_BYTES) == ordering_key_hash64(b"k" * MAX_ORDERING_KEY_BYTES)
