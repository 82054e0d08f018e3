---------------------------------------------- MODULE TerminalCounters ----------------------------------------------
(* Are the counts of ended jobs exact in every committed state?                                                      *)
(*                                                                                                                   *)
(* queue_terminal_live_counts + the deltas = the rows that are there, and with the rollups nothing is ever lost.     *)
(* Statement triggers append a delta in the transaction of the change. Folding moves the deltas of a slot into the   *)
(* live counts, pruning moves a slot's rows from live to rollups by what is there, and rebuilding counts everything  *)
(* anew. A function reads in a statement that begins after its locks were taken; the bugs read before.               *)
(*                                                                                                                   *)
(* Rows of all tables are [id, kind, slot]: kind "done" (done_entries, result_entries) or "dlq" (dlq_entries, whose  *)
(* rows lie in no slot and whose deltas go to the current one). Locks as in LockOrder: writers hold ROW EXCLUSIVE on *)
(* the slots of rows and of deltas until they end, maintenance takes ACCESS EXCLUSIVE.                               *)
(* Mirrors finalize_attempts, delete_job, retry_job, prune_ring, fold_terminal_counts, rebuild_terminal_counters.    *)
EXTENDS Integers, FiniteSets

CONSTANTS
    Jobs,
    Slots,
    Writers,        \* transactions that change rows, each used again after its end
    MaxChanges,     \* bound: transactions of writers
    MaxChores,      \* bound: runs of maintenance
    Bug

Kinds == {"done", "dlq"}

VARIABLES
    rows,           \* committed rows
    ever,           \* ids that have been used
    live, rollups,  \* [kind -> count]
    deltas,         \* committed deltas: [slot -> [kind -> sum]]
    writing,        \* [Writers -> [at, add, del]]: "idle", "rows" (its rows are written), "deltas" (its deltas too)
    chore,          \* maintenance: [at, what, slot, read]
    changes, chores,
    kept            \* history: how many rows there should be, pruned ones included, by kind

vars == <<rows, ever, live, rollups, deltas, writing, chore, changes, chores, kept>>

None == [kind \in Kinds |-> 0]
NotWriting == [at |-> "idle", add |-> {}, del |-> {}]
NoChore == [at |-> "idle", what |-> "fold", slot |-> 0, read |-> None]
AnySlot == CHOOSE s \in Slots : TRUE

Sum(f, g) == [kind \in Kinds |-> f[kind] + g[kind]]
Difference(f, g) == [kind \in Kinds |-> f[kind] - g[kind]]
CountOf(S) == [kind \in Kinds |-> Cardinality({r \in S : r.kind = kind})]
Change(w) == Difference(CountOf(writing[w].add), CountOf(writing[w].del))
(* A row's delta goes to its slot; a dead letter's to the current one, here any one. *)
DeltaSlot(r) == IF r.kind = "done" THEN r.slot ELSE AnySlot

RECURSIVE SumOver(_)
SumOver(S) == IF S = {} THEN None ELSE LET s == CHOOSE x \in S : TRUE IN Sum(deltas[s], SumOver(S \ {s}))
AllDeltas == SumOver(Slots)

Init ==
    /\ rows = {} /\ ever = {} /\ live = None /\ rollups = None /\ deltas = [s \in Slots |-> None]
    /\ writing = [w \in Writers |-> NotWriting] /\ chore = NoChore /\ changes = 0 /\ chores = 0 /\ kept = None

(* ---- Locks ---- *)

WritesRowsOf(s) == \E w \in Writers : \E r \in writing[w].add \cup writing[w].del : r.kind = "done" /\ r.slot = s
WritesDeltasOf(s) == \E w \in Writers : writing[w].at = "deltas" /\ \E r \in writing[w].add \cup writing[w].del : DeltaSlot(r) = s
LocksRows(s) == chore.at = "locked" /\ chore.what = "prune" /\ chore.slot = s
LocksDeltas(s) == chore.at = "locked" /\ (chore.what = "rebuild" \/ chore.slot = s)
Touched == UNION {{r.id : r \in writing[w].add \cup writing[w].del} : w \in Writers}

(* ---- Writers ---- *)

Begin(w, add, del) ==
    /\ writing[w].at = "idle" /\ changes < MaxChanges
    /\ \A r \in add \cup del : r.kind = "done" => ~LocksRows(r.slot)
    /\ writing' = [writing EXCEPT ![w] = [at |-> "rows", add |-> add, del |-> del]]
    /\ changes' = changes + 1
    /\ UNCHANGED <<rows, ever, live, rollups, deltas, chore, chores, kept>>

FinalizeAttempts == \E w \in Writers, j \in Jobs \ (ever \cup Touched), kind \in Kinds, s \in Slots :
    Begin(w, {[id |-> j, kind |-> kind, slot |-> s]}, {})
(* Deleted, or retried by hand: the row goes and is counted no more. *)
DeleteJob == \E w \in Writers, r \in rows : r.id \notin Touched /\ Begin(w, {}, {r})
MoveToDeadLetters == \E w \in Writers, r \in rows :
    r.kind = "done" /\ r.id \notin Touched /\ Begin(w, {[r EXCEPT !.kind = "dlq"]}, {r})

(* The triggers, at the end of the statement. *)
AppendDeltas == \E w \in Writers :
    /\ writing[w].at = "rows"
    /\ \A r \in writing[w].add \cup writing[w].del : ~LocksDeltas(DeltaSlot(r))
    /\ writing' = [writing EXCEPT ![w].at = "deltas"]
    /\ UNCHANGED <<rows, ever, live, rollups, deltas, chore, changes, chores, kept>>

EndWriter == \E w \in Writers, commits \in BOOLEAN :
    /\ writing[w].at = "deltas"
    /\ IF commits
       THEN /\ rows' = (rows \ writing[w].del) \cup writing[w].add
            /\ ever' = ever \cup {r.id : r \in writing[w].add}
            /\ deltas' = [s \in Slots |-> Sum(deltas[s], Difference(CountOf({r \in writing[w].add : DeltaSlot(r) = s}),
                                                                     CountOf({r \in writing[w].del : DeltaSlot(r) = s})))]
            /\ kept' = Sum(kept, Change(w))
       ELSE UNCHANGED <<rows, ever, deltas, kept>>
    /\ writing' = [writing EXCEPT ![w] = NotWriting]
    /\ UNCHANGED <<live, rollups, chore, changes, chores>>

(* ---- Maintenance ---- *)

RowsIn(s) == {r \in rows : r.kind = "done" /\ r.slot = s}
Truth(what, s) == CASE what = "fold" -> deltas[s]
                    [] what = "prune" -> CountOf(RowsIn(s))
                    [] what = "rebuild" -> CountOf(rows)

(* Before its locks: what the bugs read, and nobody else uses. *)
BeginChore == \E what \in {"fold", "prune", "rebuild"}, s \in Slots :
    /\ chore.at = "idle" /\ chores < MaxChores
    /\ what = "rebuild" => s = AnySlot
    /\ what = "prune" => RowsIn(s) # {}
    /\ chore' = [at |-> "begun", what |-> what, slot |-> s, read |-> IF Bug = "none" THEN None ELSE Truth(what, s)]
    /\ chores' = chores + 1
    /\ UNCHANGED <<rows, ever, live, rollups, deltas, writing, changes, kept>>

LockExclusive ==
    /\ chore.at = "begun"
    /\ CASE chore.what = "fold" -> ~WritesDeltasOf(chore.slot)
         [] chore.what = "prune" -> ~WritesRowsOf(chore.slot) /\ ~WritesDeltasOf(chore.slot)
         [] chore.what = "rebuild" -> \A s \in Slots : ~WritesDeltasOf(s)
    /\ chore' = [chore EXCEPT !.at = "locked"]
    /\ UNCHANGED <<rows, ever, live, rollups, deltas, writing, changes, chores, kept>>

Hold ==
    /\ chore.at # "idle"
    /\ chore' = NoChore
    /\ UNCHANGED <<rows, ever, live, rollups, deltas, writing, changes, chores, kept>>

ReadNow == IF Bug = chore.what THEN chore.read ELSE Truth(chore.what, chore.slot)

FoldTerminalCounts ==
    /\ chore.at = "locked" /\ chore.what = "fold"
    /\ live' = Sum(live, ReadNow)
    /\ deltas' = [deltas EXCEPT ![chore.slot] = None]
    /\ chore' = NoChore
    /\ UNCHANGED <<rows, ever, rollups, writing, changes, chores, kept>>

PruneRing ==
    /\ chore.at = "locked" /\ chore.what = "prune"
    /\ live' = Difference(Sum(live, deltas[chore.slot]), ReadNow)
    /\ deltas' = [deltas EXCEPT ![chore.slot] = None]
    /\ rollups' = Sum(rollups, ReadNow)
    /\ rows' = rows \ RowsIn(chore.slot)
    /\ chore' = NoChore
    /\ UNCHANGED <<ever, writing, changes, chores, kept>>

RebuildTerminalCounters ==
    /\ chore.at = "locked" /\ chore.what = "rebuild"
    /\ live' = ReadNow
    /\ deltas' = [s \in Slots |-> None]
    /\ chore' = NoChore
    /\ UNCHANGED <<rows, ever, rollups, writing, changes, chores, kept>>

Next == FinalizeAttempts \/ DeleteJob \/ MoveToDeadLetters \/ AppendDeltas \/ EndWriter \/ BeginChore \/ LockExclusive \/ Hold
        \/ FoldTerminalCounts \/ PruneRing \/ RebuildTerminalCounters

Spec == Init /\ [][Next]_vars

(* ---- What must hold (R9, R18) ---- *)

LiveIsExact == Sum(live, AllDeltas) = CountOf(rows)
NothingIsForgotten == Sum(Sum(live, AllDeltas), rollups) = kept
NothingIsNegative == \A kind \in Kinds : rollups[kind] >= 0 /\ live[kind] + AllDeltas[kind] >= 0
=====================================================================================================================
