------------------------------------------------- MODULE ClaimCounts -------------------------------------------------
(* Is every completion counted once, when completions are counted while their claim slot is still being filled?       *)
(*                                                                                                                   *)
(* A claim draws its id under its lane's lock and is seen when it commits, which lets go of the lock: ids of different *)
(* lanes are seen in any order. Counting reads the newest claim, waits until every lane that is held then was free     *)
(* once, and looks, in a statement that begins after that and under the lock of the slot's row, at the claims up to   *)
(* that newest one that are not counted: those whose items have all ended are added to the live counts, the others    *)
(* are remembered. Two may be at it.                                                                                  *)
(*                                                                                                                   *)
(* Left out: several slots (each has its own marks), several items a claim (open or not is all that counts), endings  *)
(* other than completions (they add nothing), prunes (RingReclaim: of slots proved closed only, after which the marks *)
(* begin anew) and rebuilds (TerminalCounters).                                                                       *)
(* Mirrors count_closed_claims, await_lanes and add_claim_counts.                                                     *)
EXTENDS Integers, FiniteSets

CONSTANTS
    Lanes,
    Counters,       \* sessions that count
    MaxClaims,      \* bound
    MaxCounts,      \* bound: how often somebody counts
    Bug

VARIABLES
    drawn,          \* ids that were drawn are 1..drawn
    claiming,       \* [Lanes -> the id that its claimer has drawn; 0: holds the lock without one; Free]
    claims,         \* committed claims, which are their ids
    ended,          \* of these, those that are completed
    marks,          \* the slot's row: [to, open]
    live,           \* the live count
    counting,       \* [Counters -> [at, newest, wait, to, open]]
    counts

vars == <<drawn, claiming, claims, ended, marks, live, counting, counts>>

Free == -1
Idle == [at |-> "idle", newest |-> 0, wait |-> {}, to |-> 0, open |-> {}]
Max(S) == IF S = {} THEN 0 ELSE CHOOSE x \in S : \A y \in S : y <= x

Init ==
    /\ drawn = 0 /\ claiming = [l \in Lanes |-> Free] /\ claims = {} /\ ended = {}
    /\ marks = [to |-> 0, open |-> {}] /\ live = 0 /\ counting = [c \in Counters |-> Idle] /\ counts = 0

(* ---- Claims ---- *)

LockLane == \E l \in Lanes :
    /\ claiming[l] = Free
    /\ claiming' = [claiming EXCEPT ![l] = 0]
    /\ UNCHANGED <<drawn, claims, ended, marks, live, counting, counts>>

DrawId == \E l \in Lanes :
    /\ claiming[l] = 0 /\ drawn < MaxClaims
    /\ drawn' = drawn + 1
    /\ claiming' = [claiming EXCEPT ![l] = drawn + 1]
    /\ UNCHANGED <<claims, ended, marks, live, counting, counts>>

EndClaim == \E l \in Lanes, commits \in BOOLEAN :
    /\ claiming[l] # Free
    /\ claims' = IF commits /\ claiming[l] > 0 THEN claims \cup {claiming[l]} ELSE claims
    /\ claiming' = [claiming EXCEPT ![l] = Free]
    (* Whoever waits for this lane waits no more. *)
    /\ counting' = [c \in Counters |-> [counting[c] EXCEPT !.wait = @ \ {l}]]
    /\ UNCHANGED <<drawn, ended, marks, live, counts>>

CompleteJobs == \E c \in claims \ ended :
    /\ ended' = ended \cup {c}
    /\ UNCHANGED <<drawn, claiming, claims, marks, live, counting, counts>>

(* ---- Counting ---- *)

CountClosedClaims == \E c \in Counters :
    /\ counting[c].at = "idle" /\ counts < MaxCounts
    /\ counting' = [counting EXCEPT ![c] = [Idle EXCEPT !.at = "waits", !.newest = Max(claims),
                                            !.wait = IF Bug = "no wait" THEN {} ELSE {l \in Lanes : claiming[l] # Free}]]
    /\ counts' = counts + 1
    /\ UNCHANGED <<drawn, claiming, claims, ended, marks, live>>

GiveUp == \E c \in Counters :
    /\ counting[c].at # "idle"
    /\ counting' = [counting EXCEPT ![c] = Idle]
    /\ UNCHANGED <<drawn, claiming, claims, ended, marks, live, counts>>

(* The lock of the slot's row: what the other has committed is read with it. *)
AwaitLanes == \E c \in Counters :
    /\ counting[c].at = "waits" /\ counting[c].wait = {}
    /\ Bug = "no row lock" \/ \A other \in Counters : counting[other].at # "adds"
    /\ counting' = [counting EXCEPT ![c] = [@ EXCEPT !.at = "adds", !.to = marks.to, !.open = marks.open,
                                            !.newest = IF Bug = "newest after the wait" THEN Max(claims) ELSE @]]
    /\ UNCHANGED <<drawn, claiming, claims, ended, marks, live, counts>>

AddClaimCounts == \E c \in Counters :
    /\ counting[c].at = "adds"
    /\ LET me == counting[c]
           looked == {k \in claims : (k > me.to /\ k <= me.newest) \/ k \in me.open}
       IN /\ live' = live + Cardinality(looked \cap ended)
          /\ marks' = [to |-> Max({me.to, me.newest}), open |-> IF Bug = "forgets" THEN {} ELSE looked \ ended]
    /\ counting' = [counting EXCEPT ![c] = Idle]
    /\ UNCHANGED <<drawn, claiming, claims, ended, counts>>

Next == LockLane \/ DrawId \/ EndClaim \/ CompleteJobs \/ CountClosedClaims \/ GiveUp \/ AwaitLanes \/ AddClaimCounts

Spec == Init /\ [][Next]_vars

(* ---- What must hold ---- *)

Counted == {k \in claims : k <= marks.to /\ k \notin marks.open}
(* A fast count, which adds what it sees of the others to the live count, is exact. *)
FastIsExact == live + Cardinality(ended \ Counted) = Cardinality(ended)
(* And what it no longer looks at has ended: it would take an open claim for none. *)
NothingOpenIsPassed == Counted \subseteq ended
=====================================================================================================================
