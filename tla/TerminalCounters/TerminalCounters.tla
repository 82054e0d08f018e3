---------------------------------------------- MODULE TerminalCounters ----------------------------------------------
(* Are the counts of ended jobs exact in every committed state?                                                      *)
(*                                                                                                                   *)
(* queue_terminal_live_counts + the deltas = the rows that are there, and with the rollups nothing is ever lost.     *)
(* Statement triggers append a delta in the transaction of the change. Folding moves the deltas of a slot into the   *)
(* live counts, pruning moves a slot's rows from live to rollups by what is there, and rebuilding counts everything  *)
(* anew. A function reads in a statement that begins after its locks were taken; the bugs read before. Pruning counts *)
(* the rows before its lock, which must be short, and finds by the number of deltas whether they have changed since.  *)
(* The prune lock lets one of these run at a time.                                                                    *)
(*                                                                                                                   *)
(* Rows of all tables are [id, kind, slot]: kind "done" (done_entries) or "dlq" (dlq_entries, whose rows lie in no   *)
(* slot and whose deltas go to the current one). Locks as in LockOrder: writers hold ROW EXCLUSIVE on *)
(* the slots of rows and of deltas until they end, maintenance takes ACCESS EXCLUSIVE.                               *)
(* Mirrors the triggers of migration 3, finalize_attempts, delete_job, retry_jobs, dead_letter_jobs, add_live_counts, *)
(* fold_terminal_counts, prune_slot and rebuild_terminal_counters.                                                    *)
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
    live,           \* queue_terminal_live_counts: [slot, or 0 for the dead letters -> count]
    rollups,        \* queue_terminal_rollups: [kind -> count]
    deltas,         \* committed deltas: [slot -> [kind -> sum]]
    appended,       \* how many rows those are: [slot -> number]
    writing,        \* [Writers -> [at, add, del]]: "idle", "rows" (its rows are written), "deltas" (its deltas too)
    chore,          \* maintenance: [at, what, slot, read, appended]
    changes, chores,
    kept            \* history: how many rows there should be, pruned ones included, by kind

vars == <<rows, ever, live, rollups, deltas, appended, writing, chore, changes, chores, kept>>

None == [kind \in Kinds |-> 0]
NotWriting == [at |-> "idle", add |-> {}, del |-> {}]
Dlq == 0                                       \* which is no slot
NoChore == [at |-> "idle", what |-> "fold", slot |-> 0, read |-> [p \in {} |-> 0], appended |-> 0]
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
    /\ rows = {} /\ ever = {} /\ live = [p \in Slots \cup {Dlq} |-> 0] /\ rollups = None
    /\ deltas = [s \in Slots |-> None] /\ appended = [s \in Slots |-> 0]
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
    /\ UNCHANGED <<rows, ever, live, rollups, deltas, appended, chore, chores, kept>>

FinalizeAttempts == \E w \in Writers, j \in Jobs \ (ever \cup Touched), kind \in Kinds, s \in Slots :
    Begin(w, {[id |-> j, kind |-> kind, slot |-> s]}, {})
(* Deleted, or retried by hand: the row goes and is counted no more. *)
DeleteJob == \E w \in Writers, r \in rows : r.id \notin Touched /\ Begin(w, {}, {r})
DeadLetterJobs == \E w \in Writers, r \in rows :
    r.kind = "done" /\ r.id \notin Touched /\ Begin(w, {[r EXCEPT !.kind = "dlq"]}, {r})

(* The triggers, at the end of the statement. *)
AppendDeltas == \E w \in Writers :
    /\ writing[w].at = "rows"
    /\ \A r \in writing[w].add \cup writing[w].del : ~LocksDeltas(DeltaSlot(r))
    /\ writing' = [writing EXCEPT ![w].at = "deltas"]
    /\ UNCHANGED <<rows, ever, live, rollups, deltas, appended, chore, changes, chores, kept>>

EndWriter == \E w \in Writers, commits \in BOOLEAN :
    /\ writing[w].at = "deltas"
    /\ IF commits
       THEN /\ rows' = (rows \ writing[w].del) \cup writing[w].add
            /\ ever' = ever \cup {r.id : r \in writing[w].add}
            /\ deltas' = [s \in Slots |-> Sum(deltas[s], Difference(CountOf({r \in writing[w].add : DeltaSlot(r) = s}),
                                                                     CountOf({r \in writing[w].del : DeltaSlot(r) = s})))]
            /\ appended' = [s \in Slots |-> appended[s] + Cardinality({r \in writing[w].add \cup writing[w].del : DeltaSlot(r) = s})]
            /\ kept' = Sum(kept, Change(w))
       ELSE UNCHANGED <<rows, ever, deltas, appended, kept>>
    /\ writing' = [writing EXCEPT ![w] = NotWriting]
    /\ UNCHANGED <<live, rollups, chore, changes, chores>>

(* ---- Maintenance ---- *)

RowsIn(s) == {r \in rows : r.kind = "done" /\ r.slot = s}
Number(p) == Cardinality(IF p = Dlq THEN {r \in rows : r.kind = "dlq"} ELSE RowsIn(p))
DeltasOf(s) == [p \in Slots \cup {Dlq} |-> IF p = s THEN deltas[s]["done"] ELSE IF p = Dlq THEN deltas[s]["dlq"] ELSE 0]
Truth(what, s) == CASE what = "fold" -> DeltasOf(s)
                    [] what = "prune" -> [p \in {s} |-> Number(s)]
                    [] what = "rebuild" -> [p \in Slots \cup {Dlq} |-> Number(p)]

(* Before its locks: what pruning reads early, and what the bugs do. *)
BeginChore == \E what \in {"fold", "prune", "rebuild"}, s \in Slots :
    /\ chore.at = "idle" /\ chores < MaxChores
    /\ what = "rebuild" => s = AnySlot
    /\ what = "prune" => RowsIn(s) # {}
    /\ chore' = [at |-> "begun", what |-> what, slot |-> s, appended |-> appended[s],
                 read |-> IF what = "prune" \/ Bug = what THEN Truth(what, s) ELSE NoChore.read]
    /\ chores' = chores + 1
    /\ UNCHANGED <<rows, ever, live, rollups, deltas, appended, writing, changes, kept>>

LockExclusive ==
    /\ chore.at = "begun"
    /\ CASE chore.what = "fold" -> ~WritesDeltasOf(chore.slot)
         [] chore.what = "prune" -> ~WritesRowsOf(chore.slot) /\ ~WritesDeltasOf(chore.slot)
         [] chore.what = "rebuild" -> \A s \in Slots : ~WritesDeltasOf(s)
    /\ chore' = [chore EXCEPT !.at = "locked"]
    /\ UNCHANGED <<rows, ever, live, rollups, deltas, appended, writing, changes, chores, kept>>

Hold ==
    /\ chore.at # "idle"
    /\ chore' = NoChore
    /\ UNCHANGED <<rows, ever, live, rollups, deltas, appended, writing, changes, chores, kept>>

ReadNow == IF Bug = chore.what THEN chore.read ELSE Truth(chore.what, chore.slot)
Plus(f, g) == [p \in DOMAIN f |-> f[p] + g[p]]
NoDeltas(S) ==
    /\ deltas' = [s \in Slots |-> IF s \in S THEN None ELSE deltas[s]]
    /\ appended' = [s \in Slots |-> IF s \in S THEN 0 ELSE appended[s]]

FoldTerminalCounts ==
    /\ chore.at = "locked" /\ chore.what = "fold"
    /\ live' = Plus(live, ReadNow)
    /\ NoDeltas({chore.slot})
    /\ chore' = NoChore
    /\ UNCHANGED <<rows, ever, rollups, writing, changes, chores, kept>>

(* The deltas go to the live counts, the dead letters' among them, and then the slot has none. *)
PruneSlot ==
    /\ chore.at = "locked" /\ chore.what = "prune"
    /\ appended[chore.slot] = chore.appended \/ Bug = "prune"
    /\ live' = [Plus(live, DeltasOf(chore.slot)) EXCEPT ![chore.slot] = 0]
    /\ NoDeltas({chore.slot})
    /\ rollups' = [rollups EXCEPT !["done"] = @ + chore.read[chore.slot]]
    /\ rows' = rows \ RowsIn(chore.slot)
    /\ chore' = NoChore
    /\ UNCHANGED <<ever, writing, changes, chores, kept>>

RebuildTerminalCounters ==
    /\ chore.at = "locked" /\ chore.what = "rebuild"
    /\ live' = ReadNow
    /\ NoDeltas(Slots)
    /\ chore' = NoChore
    /\ UNCHANGED <<rows, ever, rollups, writing, changes, chores, kept>>

Next == FinalizeAttempts \/ DeleteJob \/ DeadLetterJobs \/ AppendDeltas \/ EndWriter \/ BeginChore \/ LockExclusive \/ Hold
        \/ FoldTerminalCounts \/ PruneSlot \/ RebuildTerminalCounters

Spec == Init /\ [][Next]_vars

(* ---- What must hold (R9, R18) ---- *)

Counted(p) == live[p] + (IF p = Dlq THEN AllDeltas["dlq"] ELSE deltas[p]["done"])
LiveIsExact == \A p \in Slots \cup {Dlq} : Counted(p) = Number(p)

RECURSIVE Total(_)
Total(S) == IF S = {} THEN 0 ELSE LET p == CHOOSE x \in S : TRUE IN Counted(p) + Total(S \ {p})
NothingIsForgotten == Total(Slots) + rollups["done"] = kept["done"] /\ Counted(Dlq) = kept["dlq"]
=====================================================================================================================
