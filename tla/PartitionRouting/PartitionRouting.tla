---------------------------------------------- MODULE PartitionRouting ----------------------------------------------
(* Does every partition of a queue see every shard of a lane?                                                        *)
(*                                                                                                                   *)
(* A key's hash h picks the shard, h mod shards, and the partition, finalise(h xor salt) mod partitions. Were both   *)
(* picked by h itself and had partitions and shards a common factor, a partition would see only some of the shards.  *)
(*                                                                                                                   *)
(* The finaliser of SplitMix64 is made of two steps: x xor (x >> n), and x times an odd number. Both can be undone,  *)
(* so different hashes stay different. Here it is one of Width bits, and every hash there is gets routed.            *)
(* Mirrors awa.partitions: ordering_key_hash64, partition_hash64, partition_for_ordering_key.                        *)
EXTENDS Naturals, FiniteSets

CONSTANTS
    Width,          \* bits of a hash
    MaxParts,       \* partitions and shards go from 1 to this
    OneHash         \* the bug: one hash for both

Size == 2 ^ Width
Hashes == 0..(Size - 1)

RECURSIVE Xor(_, _)
Xor(a, b) == IF a = 0 THEN b ELSE IF b = 0 THEN a
             ELSE 2 * Xor(a \div 2, b \div 2) + (IF a % 2 = b % 2 THEN 0 ELSE 1)

Salt == (Size * 5) \div 8 + 3
Multiplier1 == (Size * 3) \div 4 + 1           \* odd
Multiplier2 == (Size * 9) \div 16 + 3          \* odd

ShiftXor(x, n) == Xor(x, x \div (2 ^ n))
Finalise(x) ==
    LET a == (ShiftXor(x, Width \div 2 - 1) * Multiplier1) % Size
        b == (ShiftXor(a, Width \div 2) * Multiplier2) % Size
    IN ShiftXor(b, Width \div 2 - 1)

PartitionHash == [h \in Hashes |-> IF OneHash THEN h ELSE Finalise(Xor(h, Salt))]

Route(h, partitions) == IF partitions <= 1 THEN 0 ELSE PartitionHash[h] % partitions
Shard(h, shards) == IF shards <= 1 THEN 0 ELSE h % shards

VARIABLES partitions, shards, next, seen

vars == <<partitions, shards, next, seen>>

Init == partitions \in 1..MaxParts /\ shards \in 1..MaxParts /\ next = 0 /\ seen = {}

RouteByKey ==
    /\ next < Size
    /\ seen' = seen \cup {<<Route(next, partitions), Shard(next, shards)>>}
    /\ next' = next + 1
    /\ UNCHANGED <<partitions, shards>>

Spec == Init /\ [][RouteByKey]_vars

InRange == \A pair \in seen : pair[1] \in 0..(partitions - 1) /\ pair[2] \in 0..(shards - 1)

EveryPartitionSeesEveryShard == next = Size => Cardinality(seen) = partitions * shards

(* The finaliser can be undone: no two hashes become one. *)
NothingCollides == next < Size \/ OneHash \/ Cardinality({PartitionHash[h] : h \in Hashes}) = Size

=====================================================================================================================
