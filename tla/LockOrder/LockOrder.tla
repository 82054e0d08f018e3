------------------------------------------------- MODULE LockOrder -------------------------------------------------
(* Can transactions of the engine wait for each other in a circle, and can maintenance make workers wait?           *)
(*                                                                                                                  *)
(* Every kind of transaction is a plan: the locks it asks for, in order. A request is asked                         *)
(*   try      and goes on without the lock when it is not to be had (a busy lane or claim is left out);             *)
(*   must     the same, but ends when it is not to be had;                                                          *)
(*   bounded  with a lock_timeout: it may give up at any moment, which ends the transaction;                        *)
(*   wait     for as long as it takes.                                                                              *)
(* Locks are given in the order of asking: a request waits behind every earlier one that it conflicts with, given   *)
(* or not. That is PostgreSQL's rule, and why a queued ACCESS EXCLUSIVE stops all who come after it.                *)
(*                                                                                                                  *)
(* One slot stands for all of a ring. Mirrors the Locks lines of sql/functions and the order in sql/README.md:      *)
(* lane, claim, ring children (queue, claim, lease, terminal), counter rows; before all of them maintenance's own.   *)
EXTENDS Naturals, Sequences, FiniteSets, TLC

CONSTANTS
    Processes,
    Kinds,          \* the plans that they may run
    Bug

VARIABLES
    plan,           \* [Processes -> kind]
    pc,             \* [Processes -> index of the next request]
    held,           \* {<<process, lock, mode>>}
    queue           \* [lock -> those who wait for it, in order: <<process, mode, how>>]

vars == <<plan, pc, held, queue>>

(* ---- Locks, in the order of sql/README.md ---- *)

Rank == [
    prune |-> 0,                                                  \* maintenance's own, which exact reads share
    unique_1 |-> 1, unique_2 |-> 2,                               \* rows of job_unique_claims, by key
    lane_1 |-> 3, lane_2 |-> 4,
    claim_1 |-> 5, claim_2 |-> 6,
    queue_slot |-> 7, claim_slot |-> 8, lease_slot |-> 9, terminal_slot |-> 10, delta_slot |-> 11,
    lane_row_1 |-> 12, lane_row_2 |-> 13,                         \* rows of queue_lanes and queue_claim_heads, under their lanes
    counter_1 |-> 14, counter_2 |-> 15]                          \* rows of queue_terminal_live_counts, under the deltas
Locks == DOMAIN Rank

(* x, shared: an advisory or row lock; read, write, share, exclusive: ACCESS SHARE, ROW EXCLUSIVE, SHARE, ACCESS EXCLUSIVE of a table *)
Conflict(a, b) ==
    \/ a = "x" /\ b \in {"x", "shared"}
    \/ a = "shared" /\ b = "x"
    \/ a = "exclusive" \/ b = "exclusive"
    \/ {a, b} = {"share", "write"}
Strong == {"x", "share", "exclusive"}

(* ---- Plans ---- *)

R(lock, mode, how) == [lock |-> lock, mode |-> mode, how |-> how]
Read(lock) == R(lock, "read", "wait")
Write(lock) == R(lock, "write", "wait")
Take(lock) == R(lock, "x", "wait")
Try(lock) == R(lock, "x", "try")
Must(lock) == R(lock, "x", "must")
Within(lock) == R(lock, "x", "bounded")
Exclusive(lock) == R(lock, "exclusive", IF Bug = "maintenance_waits_without_a_timeout" THEN "wait" ELSE "bounded")

ClaimOneLane == <<Read("claim_slot"), Read("queue_slot"), Write("claim_slot")>>
(* Several claims in one flush; keys sorted and tried, or in the bug as they come and waited for. *)
EndClaims(first, second) ==
    IF Bug = "claim_keys_unsorted_and_waited_for" THEN <<Take(first), Take(second)>> ELSE <<Try("claim_1"), Try("claim_2")>>
WriteEnding == <<Read("claim_slot"), Read("queue_slot"), Read("lease_slot"), Write("claim_slot"), Write("lease_slot"),
                 Write("queue_slot"), Write("terminal_slot"), Write("delta_slot")>>

Plans == [
    enqueue_jobs |-> <<Write("queue_slot")>>,
    enqueue_unique |-> <<Take("unique_1"), Take("unique_2"), Write("queue_slot")>>,
    (* on_conflict = replace cancels the holder in the same transaction *)
    enqueue_unique_replace |-> <<Take("unique_1"), Within("lane_1"), Read("claim_slot"), Write("queue_slot"),
                                 Write("terminal_slot"), Write("delta_slot"), Take("lane_row_1")>>,
    claim_jobs |-> <<Try("lane_1")>> \o ClaimOneLane \o <<Try("lane_2")>> \o ClaimOneLane,
    claim_jobs_waiting |-> <<Within("lane_2")>> \o ClaimOneLane,
    complete_jobs |-> EndClaims("claim_1", "claim_2") \o <<Read("claim_slot"), Write("claim_slot")>>,
    finalize_attempts |-> EndClaims("claim_2", "claim_1") \o WriteEnding,
    cancel_job |-> <<Within("lane_1"), Read("claim_slot"), Write("queue_slot"), Take("lane_row_1"), Try("claim_1")>> \o WriteEnding,
    delete_job |-> <<Within("lane_2"), Read("claim_slot"), Write("queue_slot"), Take("lane_row_2"), Try("claim_2")>> \o WriteEnding,
    save_progress |-> <<Try("claim_1"), Read("claim_slot"), Read("queue_slot"), Write("claim_slot"), Write("lease_slot")>>,
    retry_jobs |-> <<Take("unique_1"), Write("terminal_slot"), Write("delta_slot"), Write("queue_slot")>>,
    settle_tombstones |-> <<Try("lane_1"), Read("claim_slot"), Take("lane_row_1")>>,
    (* Under a lock_timeout, whatever table that is. A lane is held for a moment only, to have had it once after the seal. *)
    close_claim_slot |-> <<R("claim_slot", "read", "bounded"), Within("lane_1"), Within("counter_1")>>,
    prune_queue_slot |-> <<Must("prune"), Exclusive("queue_slot"), R("claim_slot", "read", "bounded")>>,
    prune_claim_slot |-> <<Must("prune"), Must("lane_1"), Must("lane_2"), Exclusive("claim_slot"), Within("lane_row_1"),
                           Within("lane_row_2"), Within("counter_1")>>,
    prune_lease_slot |-> <<Must("prune"), Exclusive("lease_slot"), Must("claim_1"), Must("claim_2")>>,
    prune_terminal_slot |-> <<Must("prune"), Exclusive("terminal_slot"), Exclusive("delta_slot"), Within("counter_1"),
                              Within("counter_2")>>,
    fold_terminal_counts |-> <<Must("prune"), Exclusive("delta_slot"), Within("counter_1"), Within("counter_2")>>,
    (* Its reads and its counter rows have no timeout: only other maintenance can hold them, and that gives way. *)
    rebuild_terminal_counters |-> <<Must("prune"), Exclusive("delta_slot"), Read("terminal_slot"), Take("counter_1"),
                                    Take("counter_2")>>,
    exact_read |-> <<R("prune", "shared", "wait"), Read("queue_slot"), Read("claim_slot"), Read("lease_slot"),
                     Read("terminal_slot"), Read("delta_slot")>>]

Maintenance == {"close_claim_slot", "prune_queue_slot", "prune_claim_slot", "prune_lease_slot", "prune_terminal_slot",
                "fold_terminal_counts", "rebuild_terminal_counters"}
AllKinds == DOMAIN Plans
ASSUME \A k \in AllKinds : \A i \in DOMAIN Plans[k] : Plans[k][i].lock \in Locks

Init ==
    /\ plan \in [Processes -> IF Kinds = {} THEN AllKinds ELSE Kinds]
    /\ pc = [p \in Processes |-> 1]
    /\ held = {}
    /\ queue = [l \in Locks |-> <<>>]

Ended(p) == pc[p] > Len(Plans[plan[p]])
Request(p) == Plans[plan[p]][pc[p]]
Waits(p) == \E l \in Locks : \E i \in DOMAIN queue[l] : queue[l][i][1] = p

HoldersInTheWay(p, lock, mode) == {h[1] : h \in {x \in held : x[1] # p /\ x[2] = lock /\ Conflict(x[3], mode)}}
(* Those who asked before. Whoever holds the lock in some mode is not sent to the end of the queue for another. *)
WaitersInTheWay(p, lock, mode) ==
    LET mine == {i \in DOMAIN queue[lock] : queue[lock][i][1] = p}
        ahead == IF mine = {} THEN DOMAIN queue[lock] ELSE 1..((CHOOSE i \in mine : TRUE) - 1)
    IN IF \E h \in held : h[1] = p /\ h[2] = lock THEN {}
       ELSE {queue[lock][i][1] : i \in {k \in ahead : Conflict(queue[lock][k][2], mode)}}
InTheWay(p, lock, mode) == HoldersInTheWay(p, lock, mode) \cup WaitersInTheWay(p, lock, mode)

Without(q, p) == SelectSeq(q, LAMBDA entry : entry[1] # p)

Ask(p) ==
    /\ ~Ended(p) /\ ~Waits(p)
    /\ LET r == Request(p) IN
        IF InTheWay(p, r.lock, r.mode) = {}
        THEN held' = held \cup {<<p, r.lock, r.mode>>} /\ pc' = [pc EXCEPT ![p] = @ + 1] /\ UNCHANGED queue
        ELSE IF r.how = "try"
        THEN pc' = [pc EXCEPT ![p] = @ + 1] /\ UNCHANGED <<held, queue>>
        ELSE IF r.how = "must"
        THEN pc' = [pc EXCEPT ![p] = Len(Plans[plan[p]]) + 1] /\ UNCHANGED <<held, queue>>
        ELSE queue' = [queue EXCEPT ![r.lock] = Append(@, <<p, r.mode, r.how>>)] /\ UNCHANGED <<held, pc>>
    /\ UNCHANGED plan

Grant(p) ==
    /\ ~Ended(p) /\ Waits(p)
    /\ LET r == Request(p) IN
        /\ InTheWay(p, r.lock, r.mode) = {}
        /\ queue' = [queue EXCEPT ![r.lock] = Without(@, p)]
        /\ held' = held \cup {<<p, r.lock, r.mode>>}
        /\ pc' = [pc EXCEPT ![p] = @ + 1]
    /\ UNCHANGED plan

LockTimeout(p) ==
    /\ ~Ended(p) /\ Waits(p) /\ Request(p).how = "bounded"
    /\ queue' = [queue EXCEPT ![Request(p).lock] = Without(@, p)]
    /\ held' = {h \in held : h[1] # p}
    /\ pc' = [pc EXCEPT ![p] = Len(Plans[plan[p]]) + 1]
    /\ UNCHANGED plan

EndTransaction(p) ==
    /\ Ended(p) /\ \E h \in held : h[1] = p
    /\ held' = {h \in held : h[1] # p}
    /\ UNCHANGED <<plan, pc, queue>>

Next == \E p \in Processes : Ask(p) \/ Grant(p) \/ LockTimeout(p) \/ EndTransaction(p)
Spec == Init /\ [][Next]_vars

Symmetry == Permutations(Processes)

(* ---- What must hold ---- *)

Stuck(p) == ~Ended(p) /\ Waits(p) /\ Request(p).how = "wait"

(* R13: no set of transactions that wait without a limit, each for another of the set. What waits with a limit gives way. *)
NoDeadlock == ~\E S \in SUBSET {p \in Processes : Stuck(p)} :
    S # {} /\ \A p \in S : InTheWay(p, Request(p).lock, Request(p).mode) \cap S # {}

(* R12: nobody waits for maintenance, queued or holding, that itself waits without a limit, unless it is for other maintenance *)
(* that goes on or will give way.                                                                                             *)
Soon(q) == plan[q] \in Maintenance /\ ~Stuck(q)
NobodyWaitsForMaintenance == \A p \in Processes : (~Ended(p) /\ Waits(p) /\ plan[p] \notin Maintenance) =>
    \A q \in InTheWay(p, Request(p).lock, Request(p).mode) :
        (plan[q] \in Maintenance /\ Stuck(q)) => \A other \in InTheWay(q, Request(q).lock, Request(q).mode) : Soon(other)

(* What waits for a strong lock holds only strong locks that come before it. *)
OrderIsKept == \A p \in Processes : (~Ended(p) /\ Waits(p) /\ Request(p).mode \in Strong) =>
    \A h \in held : (h[1] = p /\ h[3] \in Strong /\ h[2] # Request(p).lock) => Rank[h[2]] < Rank[Request(p).lock]
==================================================================================================================
