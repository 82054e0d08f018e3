------------------------------------------------ MODULE RingReclaim ------------------------------------------------
(* Does TRUNCATE of a ring slot ever take something that is still needed?                                           *)
(*                                                                                                                  *)
(* TRUNCATE is not MVCC: whoever reads the table afterwards finds it empty, also with a snapshot from before. A     *)
(* statement takes its snapshot first and then waits for the table's lock, so between the two a slot may be pruned. *)
(* That is modelled: a reader copies what its snapshot sees, and finds later only what is still physically there.   *)
(*                                                                                                                  *)
(* A cursor is the set of its lane's rows it has passed (SnapshotCursor shows that the pair of snapshots is one).    *)
(* Claims have one item. Locks are as in PostgreSQL: writers of a slot and readers keep theirs to the end of their  *)
(* transactions, ACCESS EXCLUSIVE waits for all of them for a moment and then gives up (held). Pruning is: a look   *)
(* without locks, lanes (by TRY), ACCESS EXCLUSIVE, the look again in a new statement, TRUNCATE.                     *)
(*                                                                                                                  *)
(* Mirrors enqueue_jobs, claim_jobs, complete_jobs, rotate_ring, prune_ring, prune_slot, close_claim_slot,          *)
(* slot_hold_reason, slot_has_unconsumed and slot_is_named. Retention is left out.                                  *)
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
    proved,         \* ring_slots.closed_at: claim slots of which it is proved that every item has ended
    pruner,         \* one maintenance session: [at, ring, slot, after, walk]: claims up to `after` are known, lanes still to walk
    handed,         \* history: {<<job, claim id>>} of committed claims
    lost            \* history: a row or claim was truncated that was still needed

vars == <<ready, claims, closed, heads, current, rotations, prunes, producing, claiming, lanes, nextId, proved, pruner, handed, lost>>

Nobody == "nobody"
NoClaim == [id |-> 0, lane |-> 0, slot |-> 0, job |-> Nobody, rslot |-> 0, cursor |-> {}]
Lanes == IF SecondLane = {} THEN {1} ELSE {1, 2}
LaneOf(p) == IF p \in SecondLane THEN 2 ELSE 1
NoHead == [id |-> 0, cursor |-> {}]
NoSnap == [ready |-> {}, claims |-> {}, head |-> NoHead, slot |-> 0]
NotClaiming == [at |-> "idle", lane |-> 0, snap |-> NoSnap, claim |-> NoClaim]
Idle == [at |-> "idle", ring |-> "queue", slot |-> 0, after |-> 0, walk |-> {}]
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
    /\ lanes = [l \in Lanes |-> Nobody] /\ nextId = 1 /\ proved = {} /\ pruner = Idle /\ handed = {} /\ lost = FALSE

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
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, prunes, claiming, lanes, nextId, proved, pruner, handed, lost>>

EnqueueJobs == \E p \in Producers :
    /\ producing[p].at = "cached" /\ ~ExclusiveOn("queue", producing[p].slot)
    /\ producing' = [producing EXCEPT ![p].at = "written"]
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, prunes, claiming, lanes, nextId, proved, pruner, handed, lost>>

EndProducer == \E p \in Producers, commits \in BOOLEAN :
    /\ producing[p].at = "written"
    /\ ready' = IF commits THEN ready \cup {[job |-> p, slot |-> producing[p].slot]} ELSE ready
    /\ producing' = [producing EXCEPT ![p] = [at |-> "over", slot |-> 0]]
    /\ UNCHANGED <<claims, closed, heads, current, rotations, prunes, claiming, lanes, nextId, proved, pruner, handed, lost>>

(* ---- Claimers ---- *)

TryLockLane == \E c \in Claimers, l \in Lanes :
    /\ claiming[c].at = "idle" /\ lanes[l] = Nobody /\ nextId <= MaxClaims
    /\ lanes' = [lanes EXCEPT ![l] = c]
    /\ claiming' = [claiming EXCEPT ![c].at = "locked", ![c].lane = l]
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, prunes, producing, nextId, proved, pruner, handed, lost>>

(* A new statement begins: its snapshot is taken, its table locks are not. *)
TakeSnapshot == \E c \in Claimers :
    /\ claiming[c].at = "locked"
    /\ claiming' = [claiming EXCEPT ![c].at = "snapshot",
        ![c].snap = LET l == claiming[c].lane IN
            [ready |-> {r \in ready : LaneOf(r.job) = l}, claims |-> InLane(claims, l), head |-> heads[l], slot |-> current["claim"]]]
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, prunes, producing, lanes, nextId, proved, pruner, handed, lost>>

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
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, prunes, producing, proved, pruner, handed, lost>>

(* PostgreSQL locks a partition when the first row is routed to it, after the row's values are known: the number is drawn *)
(* before the slot is locked for writing.                                                                                *)
InsertClaim == \E c \in Claimers :
    /\ claiming[c].at = "numbered"
    /\ claiming' = [claiming EXCEPT ![c].at = "claimed"]
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, prunes, producing, lanes, nextId, proved, pruner, handed, lost>>

EndClaim == \E c \in Claimers, commits \in BOOLEAN :
    /\ claiming[c].at = "claimed"
    /\ claims' = IF commits THEN claims \cup {claiming[c].claim} ELSE claims
    /\ handed' = IF commits THEN handed \cup {<<claiming[c].claim.job, claiming[c].claim.id>>} ELSE handed
    /\ claiming' = [claiming EXCEPT ![c] = NotClaiming]
    /\ lanes' = [lanes EXCEPT ![claiming[c].lane] = Nobody]
    /\ UNCHANGED <<ready, closed, heads, current, rotations, prunes, producing, nextId, proved, pruner, lost>>

(* An ending writes into the slot of its claim, and reads the body if it is to be tried again. *)
CompleteJobs == \E k \in claims :
    /\ k.id \notin closed /\ ~ExclusiveOn("claim", k.slot)
    /\ closed' = closed \cup {k.id}
    /\ UNCHANGED <<ready, claims, heads, current, rotations, prunes, producing, claiming, lanes, nextId, proved, pruner, handed, lost>>

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
    /\ UNCHANGED <<ready, claims, closed, heads, prunes, producing, claiming, lanes, nextId, proved, pruner, handed, lost>>

Idling == pruner.at = "idle" /\ prunes < MaxPrunes

(* slot_hold_reason of a ready slot: nothing unconsumed in it, and no claim row names it, ended or not: history reads its bodies. *)
HasUnconsumed(s) == \E r \in ReadyIn(s) : Unconsumed(r)
IsNamed(s, after) == \E k \in claims :
    /\ k.rslot = s /\ k.id > after
    /\ Bug = "only_open_claims_hold_a_ready_slot" => k.id \notin closed

(* The newest number given out is noted first: the second look, under the lock, reads only the claims that came since. *)
LookAtReadySlot == \E s \in Slots :
    /\ Idling /\ ReadyIn(s) # {} /\ s # current["queue"]
    /\ pruner' = [at |-> "noted", ring |-> "queue", slot |-> s, after |-> nextId - 1, walk |-> {}]
    /\ prunes' = prunes + 1
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, producing, claiming, lanes, nextId, proved, handed, lost>>

(* Two statements, two snapshots. *)
SlotHasUnconsumed ==
    /\ pruner.at = "noted" /\ ~HasUnconsumed(pruner.slot)
    /\ pruner' = [pruner EXCEPT !.at = "consumed"]
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, prunes, producing, claiming, lanes, nextId, proved, handed, lost>>

SlotIsNamed ==
    /\ pruner.at = "consumed" /\ ~IsNamed(pruner.slot, 0)
    /\ pruner' = [pruner EXCEPT !.at = "wanted"]
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, prunes, producing, claiming, lanes, nextId, proved, handed, lost>>

(* close_claim_slot: a sealed slot whose items have all ended; then every lane is held for a moment, so that whoever had read the *)
(* current slot before the seal has ended; then the same look again. What was proved is never proved again.                      *)
AllClosed(s) == \A k \in ClaimsIn(s) : k.id \in closed

LookAtClaimSlot == \E s \in Slots :
    /\ Idling /\ ClaimsIn(s) # {} /\ s # current["claim"] /\ (s \in proved \/ AllClosed(s))
    /\ pruner' = [at |-> IF s \in proved THEN "proved" ELSE "walking", ring |-> "claim", slot |-> s, after |-> 0,
                  walk |-> IF Bug = "lanes_not_waited_for" THEN {} ELSE Lanes]
    /\ prunes' = prunes + 1
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, producing, claiming, lanes, nextId, proved, handed, lost>>

WalkLane == \E l \in pruner.walk :
    /\ pruner.at = "walking" /\ lanes[l] = Nobody
    /\ pruner' = [pruner EXCEPT !.walk = @ \ {l}]
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, prunes, producing, claiming, lanes, nextId, proved, handed, lost>>

CloseClaimSlot ==
    /\ pruner.at = "walking" /\ pruner.walk = {} /\ AllClosed(pruner.slot)
    /\ proved' = proved \cup {pruner.slot}
    /\ pruner' = [pruner EXCEPT !.at = "proved"]
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, prunes, producing, claiming, lanes, nextId, handed, lost>>

(* Every lane whose newest claim, by lane_cursor, lies in the slot, by TRY. *)
LanesWithNewestIn(s) == {l \in Lanes : \E k \in ClaimsIn(s) : k.lane = l /\ k.id = LaneCursor(l).id}
LockPrunedLanes ==
    /\ pruner.at = "proved"
    /\ LET wanted == IF Bug = "truncate_without_lane_lock" THEN {} ELSE LanesWithNewestIn(pruner.slot) IN
        /\ \A l \in wanted : lanes[l] = Nobody
        /\ lanes' = [l \in Lanes |-> IF l \in wanted THEN "pruner" ELSE lanes[l]]
    /\ pruner' = [pruner EXCEPT !.at = "wanted"]
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, prunes, producing, claiming, nextId, proved, handed, lost>>

LockExclusive ==
    /\ pruner.at = "wanted" /\ ~ReadsAll
    /\ pruner.ring = "queue" => ~WritesReady(pruner.slot)
    /\ pruner' = [pruner EXCEPT !.at = "exclusive"]
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, prunes, producing, claiming, lanes, nextId, proved, handed, lost>>

Release == lanes' = [l \in Lanes |-> IF lanes[l] = "pruner" THEN Nobody ELSE lanes[l]]

(* Any gate or lock may say: not now. *)
Hold ==
    /\ pruner.at # "idle"
    /\ pruner' = Idle /\ Release
    /\ UNCHANGED <<ready, claims, closed, heads, current, rotations, prunes, producing, claiming, nextId, proved, handed, lost>>

PruneReadySlot ==
    /\ pruner.at = "exclusive" /\ pruner.ring = "queue"
    /\ Bug = "gates_not_checked_again" \/ (~HasUnconsumed(pruner.slot) /\ ~IsNamed(pruner.slot, pruner.after))
    /\ ready' = ready \ ReadyIn(pruner.slot)
    /\ lost' = (lost \/ \E r \in ReadyIn(pruner.slot) : Unconsumed(r))
    /\ pruner' = Idle
    /\ UNCHANGED <<claims, closed, heads, current, rotations, prunes, producing, claiming, lanes, nextId, proved, handed>>

(* It is proved, so there is nothing to look at again; the cursors of the lanes that were locked are saved. *)
PruneClaimSlot ==
    /\ pruner.at = "exclusive" /\ pruner.ring = "claim"
    /\ LET saved == CASE Bug = "cursor_not_saved" -> {}
                      [] Bug = "truncate_without_lane_lock" -> LanesWithNewestIn(pruner.slot)
                      [] OTHER -> {l \in Lanes : lanes[l] = "pruner"}
       IN heads' = [l \in Lanes |-> IF l \in saved THEN LaneCursor(l) ELSE heads[l]]
    /\ claims' = claims \ ClaimsIn(pruner.slot)
    /\ lost' = (lost \/ ~AllClosed(pruner.slot))
    /\ proved' = proved \ {pruner.slot}
    /\ pruner' = Idle /\ Release
    /\ UNCHANGED <<ready, closed, current, rotations, prunes, producing, claiming, nextId, handed>>

Next == ReadCurrentSlot \/ EnqueueJobs \/ EndProducer \/ TryLockLane \/ TakeSnapshot \/ ClaimJobs \/ InsertClaim \/ EndClaim
        \/ CompleteJobs \/ RotateRing \/ LookAtReadySlot \/ SlotHasUnconsumed \/ SlotIsNamed \/ LookAtClaimSlot \/ WalkLane
        \/ CloseClaimSlot \/ LockPrunedLanes \/ LockExclusive \/ Hold \/ PruneReadySlot \/ PruneClaimSlot

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
