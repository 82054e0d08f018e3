------------------------------------------------ MODULE RingReclaim ------------------------------------------------
(* Does TRUNCATE of a ring slot ever take something that is still needed?                                           *)
(*                                                                                                                  *)
(* TRUNCATE is not MVCC: whoever reads the table afterwards finds it empty, also with a snapshot from before. A     *)
(* statement takes its snapshot first and then waits for the table's lock, so between the two a slot may be pruned. *)
(* That is modelled: a reader copies what its snapshot sees, and finds later only what is still physically there.   *)
(*                                                                                                                  *)
(* A cursor is the set of its lane's rows it has passed (SnapshotCursor shows that the pair of snapshots is one).    *)
(* Claims have one item. Locks are as in PostgreSQL: writers of a slot and readers keep theirs to the end of their  *)
(* transactions, ACCESS EXCLUSIVE waits for all of them for a moment and then gives up (held). A transaction of the *)
(* pruner is: lanes (by TRY), ACCESS EXCLUSIVE, the gates again in a new statement, TRUNCATE.                        *)
(*                                                                                                                  *)
(* Mirrors enqueue_jobs, claim_jobs, complete_jobs, rotate_ring and prune_ring.                                     *)
EXTENDS Naturals, FiniteSets

CONSTANTS
    Slots,          \* of each of the two rings
    Producers,      \* sessions that enqueue one row each; a producer may have read the current slot long ago
    SecondLane,     \* those of them whose rows go to lane 2, not to lane 1
    Claimers,
    MaxClaims, MaxRotations, MaxPrunes,
    Bug

VARIABLES
    ready,          \* committed ready_entries: {[job, slot]}
    claims,         \* committed lease_claim_batches: {[id, lane, slot, job, rslot, cursor]}
    closed,         \* ids of claims whose evidence is written; it lies in the claim's own slot
    heads,          \* queue_claim_heads: [lane -> [id, cursor]]
    current,        \* the ledgers: [ring -> slot]
    rotations, prunes,
    producing,      \* [Producers -> [at, slot]]: at is "start", "cached" (knows a slot), "written" (uncommitted), "over"
    claiming,       \* [Claimers -> [at, lane, snap, claim]]: "idle", "locked", "snapshot", "numbered", "claimed" (uncommitted)
    lanes,          \* who holds a lane's advisory lock
    nextId,
    pruner,         \* one maintenance session: [at, ring, slot, proof]
    handed,         \* history: {<<job, claim id>>} of committed claims
    lost            \* history: a row or claim was truncated that was still needed

vars == <<ready, claims, closed, heads, current, rotations, prunes, producing, claiming, lanes, nextId, pruner, handed, lost>>

Nobody == "nobody"
NoClaim == [id |-> 0, lane |-> 0, slot |-> 0, job |-> Nobody, rslot |-> 0, cursor |-> {}]
Lanes == IF SecondLane = {} THEN {1} ELSE {1, 2}
LaneOf(p) == IF p \in SecondLane THEN 2 ELSE 1
NoHead == [id |-> 0, cursor |-> {}]
NoSnap == [ready |-> {}, claims |-> {}, head |-> NoHead, slot |-> 0]
NotClaiming == [at |-> "idle", lane |-> 0, snap |-> NoSnap, claim |-> NoClaim]
Idle == [at |-> "idle", ring |-> "queue", slot |-> 0, proof |-> {}]
FirstSlot == CHOOSE s \in Slots : TRUE

Newest(S) == CHOOSE c \in S : \A d \in S : d.id <= c.id
InLane(rows, l) == {c \in rows : c.lane = l}
Cursor(rows, saved) == LET all == {[id |-> c.id, cursor |-> c.cursor] : c \in rows} \cup {saved} IN Newest(all)
LaneCursor(l) == Cursor(InLane(claims, l), heads[l])
Unconsumed(r) == r.job \notin LaneCursor(LaneOf(r.job)).cursor

Init ==
    /\ ready = {} /\ claims = {} /\ closed = {} /\ heads = [l \in Lanes |-> NoHead]
    /\ current = [ring \in {"queue", "claim"} |-> FirstSlot] /\ rotations = 0 /\ prunes = 0
    /\ producing = [p \in Producers |-> [at |-> "start", slot |-> 0]]
    /\ claiming = [c \in Claimers |-> NotClaiming]
    /\ lanes = [l \in Lanes |-> Nobody] /\ nextId = 1 /\ pruner = Idle /\ handed = {} /\ lost = FALSE

(* ---- Who has a lock on a slot ---- *)

WritesReady(s) == \E p \in Producers : producing[p].at = "written" /\ producing[p].slot = s
(* A claim has read every slot of both rings, and keeps those locks until it ends. *)
ReadsAll == \E c \in Claimers : claiming[c].at \in {"numbered", "claimed"}
ExclusiveOn(ring, s) == pruner.at = "exclusive" /\ pruner.ring = ring /\ pruner.slot = s
AnyExclusive == pruner.at = "exclusive"

(* ---- Producers ---- *)

(* A client may remember a slot for as long as it likes: a row that lands in a sealed one is legal. *)
ReadCurrentSlot == \E p \in Producers :
    /\ producing[p].at = "start"
    /\ producing' = [producing EXCEPT ![p] = [at |-> "cached", slot |-> current["queue"]]]
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, prunes, claiming, lanes, nextId, pruner, handed, lost>>

EnqueueJobs == \E p \in Producers :
    /\ producing[p].at = "cached" /\ ~ExclusiveOn("queue", producing[p].slot)
    /\ producing' = [producing EXCEPT ![p].at = "written"]
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, prunes, claiming, lanes, nextId, pruner, handed, lost>>

EndProducer == \E p \in Producers, commits \in BOOLEAN :
    /\ producing[p].at = "written"
    /\ ready' = IF commits THEN ready \cup {[job |-> p, slot |-> producing[p].slot]} ELSE ready
    /\ producing' = [producing EXCEPT ![p] = [at |-> "over", slot |-> 0]]
    /\ UNCHANGED <<claims, closed, heads, current, rotations, prunes, claiming, lanes, nextId, pruner, handed, lost>>

(* ---- Claimers ---- *)

TryLockLane == \E c \in Claimers, l \in Lanes :
    /\ claiming[c].at = "idle" /\ lanes[l] = Nobody /\ nextId <= MaxClaims
    /\ lanes' = [lanes EXCEPT ![l] = c]
    /\ claiming' = [claiming EXCEPT ![c].at = "locked", ![c].lane = l]
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, prunes, producing, nextId, pruner, handed, lost>>

(* A new statement begins: its snapshot is taken, its table locks are not. *)
TakeSnapshot == \E c \in Claimers :
    /\ claiming[c].at = "locked"
    /\ claiming' = [claiming EXCEPT ![c].at = "snapshot",
        ![c].snap = LET l == claiming[c].lane IN
            [ready |-> {r \in ready : LaneOf(r.job) = l}, claims |-> InLane(claims, l), head |-> heads[l], slot |-> current["claim"]]]
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, prunes, producing, lanes, nextId, pruner, handed, lost>>

(* It has its locks and reads: what the snapshot sees and no TRUNCATE has taken meanwhile. It draws the claim's number. *)
ClaimJobs == \E c \in Claimers :
    /\ claiming[c].at = "snapshot" /\ ~AnyExclusive
    /\ LET snap == claiming[c].snap
           at == Cursor(snap.claims \cap claims, snap.head)
           found == {r \in snap.ready \cap ready : r.job \notin at.cursor}
       IN IF found = {}
          THEN /\ claiming' = [claiming EXCEPT ![c] = NotClaiming]
               /\ lanes' = [lanes EXCEPT ![claiming[c].lane] = Nobody]
               /\ UNCHANGED nextId
          ELSE /\ \E r \in found : claiming' = [claiming EXCEPT ![c] = [at |-> "numbered", lane |-> @.lane, snap |-> NoSnap,
                    claim |-> [id |-> nextId, lane |-> @.lane, slot |-> snap.slot, job |-> r.job, rslot |-> r.slot,
                               cursor |-> at.cursor \cup {r.job}]]]
               /\ nextId' = nextId + 1
               /\ UNCHANGED lanes
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, prunes, producing, pruner, handed, lost>>

(* PostgreSQL locks a partition when the first row is routed to it, after the row's values are known: the number is drawn *)
(* before the slot is locked for writing.                                                                                *)
InsertClaim == \E c \in Claimers :
    /\ claiming[c].at = "numbered"
    /\ claiming' = [claiming EXCEPT ![c].at = "claimed"]
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, prunes, producing, lanes, nextId, pruner, handed, lost>>

EndClaim == \E c \in Claimers, commits \in BOOLEAN :
    /\ claiming[c].at = "claimed"
    /\ claims' = IF commits THEN claims \cup {claiming[c].claim} ELSE claims
    /\ handed' = IF commits THEN handed \cup {<<claiming[c].claim.job, claiming[c].claim.id>>} ELSE handed
    /\ claiming' = [claiming EXCEPT ![c] = NotClaiming]
    /\ lanes' = [lanes EXCEPT ![claiming[c].lane] = Nobody]
    /\ UNCHANGED <<ready, closed, heads, current, rotations, prunes, producing, nextId, pruner, lost>>

(* An ending writes into the slot of its claim, and reads the body if it is to be tried again. *)
CompleteJobs == \E k \in claims :
    /\ k.id \notin closed /\ ~ExclusiveOn("claim", k.slot)
    /\ closed' = closed \cup {k.id}
    /\ UNCHANGED <<ready, claims, heads, current, rotations, prunes, producing, claiming, lanes, nextId, pruner, handed, lost>>

(* ---- Rotation and pruning ---- *)

ReadyIn(s) == {r \in ready : r.slot = s}
ClaimsIn(s) == {k \in claims : k.slot = s}

(* Any empty slot may come next; rows that are not committed yet are not seen, and do no harm. *)
RotateRing == \E ring \in {"queue", "claim"}, s \in Slots :
    /\ rotations < MaxRotations /\ s # current[ring]
    /\ IF ring = "queue" THEN ReadyIn(s) = {} /\ ReadyIn(current[ring]) # {}
                         ELSE ClaimsIn(s) = {} /\ ClaimsIn(current[ring]) # {}
    /\ current' = [current EXCEPT ![ring] = s]
    /\ rotations' = rotations + 1
    /\ UNCHANGED <<ready, claims, closed, heads, prunes, producing, claiming, lanes, nextId, pruner, handed, lost>>

Idling == pruner.at = "idle" /\ prunes < MaxPrunes

(* The gates of a ready slot: sealed, nothing unconsumed, and no claim row names it, ended or not: history reads its bodies. *)
ReadyGate(s) ==
    /\ s # current["queue"]
    /\ \A r \in ReadyIn(s) : ~Unconsumed(r)
    /\ \A k \in claims : k.rslot = s => (Bug = "only_open_claims_hold_a_ready_slot" /\ k.id \in closed)

(* Cheap, without locks. *)
LookAtReadySlot == \E s \in Slots :
    /\ Idling /\ ReadyIn(s) # {} /\ ReadyGate(s)
    /\ pruner' = [at |-> "wanted", ring |-> "queue", slot |-> s, proof |-> {}]
    /\ prunes' = prunes + 1
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, producing, claiming, lanes, nextId, handed, lost>>

(* A claim slot is proved once: every item of every claim has ended. The proof says which claims it has seen (in SQL their    *)
(* number: claims are only ever added), and that is what makes it safe; a SHARE lock meanwhile keeps writers out, and more.   *)
ProveClosed == \E s \in Slots :
    /\ Idling /\ ClaimsIn(s) # {} /\ s # current["claim"]
    /\ \A k \in ClaimsIn(s) : k.id \in closed
    /\ pruner' = [at |-> "proved", ring |-> "claim", slot |-> s, proof |-> {k.id : k \in ClaimsIn(s)}]
    /\ prunes' = prunes + 1
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, producing, claiming, lanes, nextId, handed, lost>>

(* Every lane whose newest claim row lies in the slot, by TRY. *)
LanesWithNewestIn(s) == {l \in Lanes : InLane(claims, l) # {} /\ Newest(InLane(claims, l)).slot = s}
LockPrunedLanes ==
    /\ pruner.at = "proved"
    /\ LET wanted == IF Bug = "truncate_without_lane_lock" THEN {} ELSE LanesWithNewestIn(pruner.slot) IN
        /\ \A l \in wanted : lanes[l] = Nobody
        /\ lanes' = [l \in Lanes |-> IF l \in wanted THEN "pruner" ELSE lanes[l]]
    /\ pruner' = [pruner EXCEPT !.at = "wanted"]
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, prunes, producing, claiming, nextId, handed, lost>>

LockExclusive ==
    /\ pruner.at = "wanted" /\ ~ReadsAll
    /\ pruner.ring = "queue" => ~WritesReady(pruner.slot)
    /\ pruner' = [pruner EXCEPT !.at = "exclusive"]
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, prunes, producing, claiming, lanes, nextId, handed, lost>>

Release == lanes' = [l \in Lanes |-> IF lanes[l] = "pruner" THEN Nobody ELSE lanes[l]]

(* Any gate or lock may say: not now. *)
Hold ==
    /\ pruner.at # "idle"
    /\ pruner' = Idle /\ Release
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, prunes, producing, claiming, nextId, handed, lost>>

PruneReadySlot ==
    /\ pruner.at = "exclusive" /\ pruner.ring = "queue"
    /\ ReadyGate(pruner.slot) \/ Bug = "gates_not_checked_again"
    /\ ready' = ready \ ReadyIn(pruner.slot)
    /\ lost' = (lost \/ \E r \in ReadyIn(pruner.slot) : Unconsumed(r))
    /\ pruner' = Idle
    /\ UNCHANGED <<claims, closed, heads, current, rotations, prunes, producing, claiming, lanes, nextId, handed>>

(* No claim that the proof has not seen, and the lanes are still the ones that were locked; their cursors are saved. *)
PruneClaimSlot ==
    /\ pruner.at = "exclusive" /\ pruner.ring = "claim"
    /\ \/ Bug = "gates_not_checked_again"
       \/ /\ pruner.slot # current["claim"]
          /\ ClaimsIn(pruner.slot) # {}
          /\ IF Bug = "proof_names_only_the_newest_claim"
             THEN Newest(ClaimsIn(pruner.slot)).id \in pruner.proof
             ELSE {k.id : k \in ClaimsIn(pruner.slot)} = pruner.proof
          /\ Bug = "truncate_without_lane_lock" \/ \A l \in LanesWithNewestIn(pruner.slot) : lanes[l] = "pruner"
    /\ heads' = [l \in Lanes |-> IF l \in LanesWithNewestIn(pruner.slot) /\ Bug # "cursor_not_saved" THEN LaneCursor(l) ELSE heads[l]]
    /\ claims' = claims \ ClaimsIn(pruner.slot)
    /\ lost' = (lost \/ \E k \in ClaimsIn(pruner.slot) : k.id \notin closed)
    /\ pruner' = Idle /\ Release
    /\ UNCHANGED <<ready, closed, current, rotations, prunes, producing, claiming, nextId, handed>>

Next == ReadCurrentSlot \/ EnqueueJobs \/ EndProducer \/ TryLockLane \/ TakeSnapshot \/ ClaimJobs \/ InsertClaim \/ EndClaim \/ CompleteJobs
        \/ RotateRing \/ LookAtReadySlot \/ ProveClosed \/ LockPrunedLanes \/ LockExclusive \/ Hold \/ PruneReadySlot
        \/ PruneClaimSlot

Spec == Init /\ [][Next]_vars

(* ---- What must hold ---- *)

(* R6, R7: no row was truncated that no claim had taken, no claim that had not ended. *)
NothingLiveDropped == ~lost

(* R3: no job is handed out twice, also not by a claimer whose snapshot is older than a TRUNCATE. *)
NoneTwice == \A a, b \in handed : a[1] = b[1] => a = b

(* R8: whatever claim is kept, its body is kept: history and endings read it. *)
KeptClaimsHaveBodies == \A k \in claims : \E r \in ready : r.job = k.job

(* The cursor never goes back: what was handed out lies behind it. *)
CursorKeepsUp == \A h \in handed : h[1] \in LaneCursor(LaneOf(h[1])).cursor
==================================================================================================================
