------------------------------------------------- MODULE DeadTuples -------------------------------------------------
(* Can any history of the engine leave a dead tuple in a ring of the hot path?                                       *)
(*                                                                                                                   *)
(* PostgreSQL leaves a dead version behind with every UPDATE and DELETE; TRUNCATE takes live and dead ones alike.     *)
(* (An INSERT that is rolled back leaves one too: the caller's doing, and it goes with the slot.) Mutations is what   *)
(* the SQL of every function really does, read out of sql/functions by tla/mutations.py; which of it is allowed       *)
(* stands in mutations.toml, and a test holds the SQL against that.                                                   *)
(*                                                                                                                   *)
(* Tables know nothing of each other here, so a behaviour is what happens to one of them.                            *)
EXTENDS Naturals, FiniteSets, Mutations

CONSTANTS
    MostRows,       \* bound
    Bug

VARIABLES
    table,
    live, dead      \* its rows and its dead versions

vars == <<table, live, dead>>

(* What the functions do; the bug is a completion that removes its claim. *)
Does ==
    IF Bug = "completion_deletes_its_claim" THEN Mutations \cup {<<"complete_jobs", "DELETE", "lease_claim_batches">>}
    ELSE Mutations

CanBe(verb) == \E m \in Does : m[2] = verb /\ m[3] = table

Init == table \in Tables /\ live = 0 /\ dead = 0

Insert == CanBe("INSERT") /\ live < MostRows /\ live' = live + 1 /\ UNCHANGED <<table, dead>>

Update == CanBe("UPDATE") /\ live > 0 /\ dead < MostRows /\ dead' = dead + 1 /\ UNCHANGED <<table, live>>

Delete == CanBe("DELETE") /\ live > 0 /\ live' = live - 1 /\ dead' = dead + 1 /\ dead < MostRows /\ UNCHANGED table

Truncate == table \in HotRings /\ live > 0 /\ live' = 0 /\ dead' = 0 /\ UNCHANGED table

Next == Insert \/ Update \/ Delete \/ Truncate

Spec == Init /\ [][Next]_vars

(* ---- What must hold (R10) ---- *)

NoDeadTupleOnTheHotPath == table \in HotRings => dead = 0

(* And no function has a statement that could make one, whether or not a behaviour reaches it. *)
HotRingsOnlyGrowUntilTruncated == \A m \in Does : m[3] \in HotRings => m[2] \in {"INSERT", "TRUNCATE"}
=====================================================================================================================
