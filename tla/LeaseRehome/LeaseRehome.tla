------------------------------------------------- MODULE LeaseRehome -------------------------------------------------
(* A lease slot is pruned by moving its live leases into the current slot. Can that lose one, or double one, while its *)
(* attempt is being ended?                                                                                            *)
(*                                                                                                                    *)
(* A lease is one row that stands in one slot. finalize_attempts reads it in the snapshot of its statement and deletes *)
(* what it has read: a row that was moved meanwhile is gone under READ COMMITTED, so nothing is deleted, and the       *)
(* ending is written all the same. Whoever deletes a row that another transaction is deleting waits for its end. The   *)
(* claim's lock is taken by TRY, in a statement of its own, before.                                                    *)
(*                                                                                                                    *)
(* Versions of the row are by slot: written (committed), or pending (by a transaction under way).                     *)
EXTENDS Naturals, FiniteSets

CONSTANTS Enders, Bug

Movers == {"prune"}
All == Enders \cup Movers
Nobody == "nobody"
Old == "old"
New == "new"

VARIABLES
    versions,       \* slots in which a committed, living version of the lease stands
    lock,           \* who holds the claim's lock
    rowLock,        \* [slot -> who is deleting the version there]
    pc,             \* [All -> "idle", "locked", "read", "written", "over"]
    seen,           \* [All -> slot in which its snapshot has the lease, or "none"]
    deletes,        \* [All -> it deletes the version it has seen, when it commits]
    endings,        \* how many endings are committed: retries, results, dead letters
    pruned, lost

vars == <<versions, lock, rowLock, pc, seen, deletes, endings, pruned, lost>>

Init ==
    /\ versions = {Old} /\ lock = Nobody /\ rowLock = [s \in {Old, New} |-> Nobody]
    /\ pc = [p \in All |-> "idle"] /\ seen = [p \in All |-> "none"] /\ deletes = [p \in All |-> FALSE]
    /\ endings = 0 /\ pruned = FALSE /\ lost = FALSE

TryLockClaim(p) ==
    /\ pc[p] = "idle"
    /\ IF p \in Movers /\ Bug = "moves_without_the_claims_lock"
       THEN pc' = [pc EXCEPT ![p] = "locked"] /\ UNCHANGED lock
       ELSE lock = Nobody /\ lock' = p /\ pc' = [pc EXCEPT ![p] = "locked"]
    /\ UNCHANGED <<versions, rowLock, seen, deletes, endings, pruned, lost>>

(* The statement's snapshot. Pruning looks in the old slot only. *)
Read(p) ==
    /\ pc[p] = "locked"
    /\ seen' = [seen EXCEPT ![p] = IF versions = {} \/ (p \in Movers /\ Old \notin versions) THEN "none"
                                   ELSE IF Old \in versions THEN Old ELSE New]
    /\ pc' = [pc EXCEPT ![p] = IF seen'[p] = "none" THEN "over" ELSE "read"]
    /\ lock' = IF seen'[p] = "none" /\ lock = p THEN Nobody ELSE lock
    /\ UNCHANGED <<versions, rowLock, deletes, endings, pruned, lost>>

(* DELETE of the version read: waits for another deleter's end, and deletes nothing if it is gone by then. *)
Delete(p) ==
    /\ pc[p] = "read" /\ rowLock[seen[p]] = Nobody
    /\ deletes' = [deletes EXCEPT ![p] = seen[p] \in versions]
    /\ rowLock' = IF seen[p] \in versions THEN [rowLock EXCEPT ![seen[p]] = p] ELSE rowLock
    /\ pc' = [pc EXCEPT ![p] = "written"]
    /\ UNCHANGED <<versions, lock, seen, endings, pruned, lost>>

EndTransaction(p, commits) ==
    /\ pc[p] = "written"
    /\ pc' = [pc EXCEPT ![p] = "over"]
    /\ rowLock' = [s \in {Old, New} |-> IF rowLock[s] = p THEN Nobody ELSE rowLock[s]]
    /\ lock' = IF lock = p THEN Nobody ELSE lock
    /\ IF ~commits THEN UNCHANGED <<versions, endings>>
       ELSE IF p \in Movers
       (* INSERT ... SELECT from DELETE ... RETURNING: what was not deleted is not inserted. *)
       THEN versions' = (IF deletes[p] THEN (versions \ {Old}) \cup {New} ELSE versions) /\ UNCHANGED endings
       (* The body comes from what was read, whether or not the row could be deleted. *)
       ELSE versions' = (IF deletes[p] THEN versions \ {seen[p]} ELSE versions) /\ endings' = endings + 1
    /\ UNCHANGED <<seen, deletes, pruned, lost>>

(* ACCESS EXCLUSIVE, when nobody writes there any more, the gate in a new statement, TRUNCATE. *)
PruneRing ==
    /\ ~pruned /\ pc["prune"] = "over"
    /\ \A p \in All : pc[p] \notin {"read", "written"}
    /\ Old \notin versions \/ Bug = "gate_not_checked_again"
    /\ pruned' = TRUE
    /\ versions' = versions \ {Old}
    /\ lost' = (Old \in versions)
    /\ UNCHANGED <<lock, rowLock, pc, seen, deletes, endings>>

LockClaim == \E p \in All : TryLockClaim(p)
ReadLease == \E p \in All : Read(p)
DeleteLease == \E p \in All : Delete(p)
End == \E p \in All, commits \in BOOLEAN : EndTransaction(p, commits)

Next == LockClaim \/ ReadLease \/ DeleteLease \/ End \/ PruneRing

Spec == Init /\ [][Next]_vars

(* ---- What must hold ---- *)

(* R1: a lease or an ending, never both, never neither. *)
OnePlace == lost \/ Cardinality(versions) + endings = 1

NothingLiveDropped == ~lost
======================================================================================================================
