---------------------------------------------- MODULE SnapshotCursor ----------------------------------------------
(* One lane's cursor, a pair of snapshots: are all jobs handed out, each once, in causal order, whatever commits   *)
(* when, and whatever claim rows have been pruned?                                                                *)
(*                                                                                                                *)
(* A producer is a transaction that writes rows of this lane: it gets its transaction id with its first write and *)
(* commits or aborts when it likes. A claimer holds the lane's lock from LockLane to its end, takes a new snapshot *)
(* in each statement, and may enqueue in its own transaction, before its claim and after it. A snapshot is        *)
(* [xmax, xip], made as PostgreSQL makes it: xmax is one past the newest transaction that is over, and xip the    *)
(* ones before it that are not. Pruning takes claim rows one by one in any order: a slot is a set of them.        *)
(*                                                                                                                *)
(* Mirrors lane_cursor, is_consumed, window_ranges, window_rows, settled_snapshot and claim_jobs.                 *)
EXTENDS Naturals, Sequences, FiniteSets, TLC

CONSTANTS
    Producers,      \* transactions that enqueue
    Claimers,       \* transactions that claim, and may enqueue; each claimer is used again after its end
    MaxRows,        \* bound: rows a producer writes
    MaxClaims,      \* bound: claims that are begun
    MaxOwnRows,     \* bound: rows that a claimer enqueues in one transaction
    Limits,         \* the values of p_limit
    Bug

VARIABLES
    xids,           \* the id of a transaction, 0 before its first write: [Producers \cup Claimers -> Nat]
    nextXid,
    over,           \* ids of transactions that have committed or aborted
    committed,      \* ids of transactions that have committed
    rows,           \* ready_entries: {[xid, seq]}; seq is lane_seq
    nextSeq,
    claims,         \* committed lease_claim_batches: {[id, prev, cur, pos]}
    head,           \* queue_claim_heads: {} or {[id, prev, cur, pos]}
    nextId,
    lane,           \* who holds the lane's lock, or "nobody"
    pc,             \* [Claimers -> "idle" | "locked" | "read" | "claimed"]
    cursor,         \* [Claimers -> the cursor read, or after its claim]
    taken,          \* [Claimers -> the rows its claim hands out, in order]
    handed,         \* history: rows handed out by committed claims, in order
    before,         \* history: pairs of transaction ids, the first had committed before the second was given out
    missed          \* history: a claim came back empty although a row was there to be found

vars == <<xids, nextXid, over, committed, rows, nextSeq, claims, head, nextId, lane, pc, cursor, taken, handed, before, missed>>

All == Producers \cup Claimers
Nobody == "nobody"

(* ---- Snapshots ---- *)

InProgress == {xids[t] : t \in {u \in All : xids[u] # 0}} \ over
Max(S) == CHOOSE x \in S : \A y \in S : y <= x
CurrentXmax == IF over = {} THEN 1 ELSE 1 + Max(over)

(* pg_current_snapshot of a transaction with the id own (0: none): it leaves its own id out of xip, which reads as over. *)
CurrentSnapshot(own) == [xmax |-> CurrentXmax, xip |-> {x \in InProgress \ {own} : x < CurrentXmax}]

(* settled_snapshot: the same with the own id in progress *)
SettledSnapshot(own) ==
    IF own = 0 \/ own >= CurrentXmax \/ Bug = "own_transaction_counts_as_over" THEN CurrentSnapshot(own)
    ELSE [xmax |-> CurrentXmax, xip |-> CurrentSnapshot(own).xip \cup {own}]

Visible(x, s) == x < s.xmax /\ x \notin s.xip              \* pg_visible_in_snapshot

(* ---- The cursor ---- *)

Nowhere == [xmax |-> 1, xip |-> {}]
Origin == [xid |-> 0, seq |-> 0]
Beginning == [id |-> 0, prev |-> Nowhere, cur |-> Nowhere, pos |-> Origin]

AtOrBefore(p, q) == p.xid < q.xid \/ (p.xid = q.xid /\ p.seq <= q.seq)

IsConsumed(row, c) ==
    IF Bug = "one_position" THEN AtOrBefore(row, c.pos)
    ELSE Visible(row.xid, c.prev) \/ (Visible(row.xid, c.cur) /\ AtOrBefore(row, c.pos))

Newest(S) == CHOOSE c \in S : \A d \in S : d.id <= c.id

(* lane_cursor: the newest by id of the claim rows, the saved head and the beginning *)
LaneCursor ==
    IF Bug = "claim_row_wins_over_newer_head" /\ claims # {} THEN Newest(claims)
    ELSE Newest(claims \cup head \cup {Beginning})

(* ---- The window ---- *)

(* What a statement of this transaction sees of the lane: committed rows and its own. *)
Seen(own) == {r \in rows : r.xid \in committed \/ r.xid = own}

(* window_ranges and window_rows, range by range: the stragglers first, then all that began after prev. *)
RECURSIVE Sorted(_)
Sorted(S) == IF S = {} THEN <<>>
             ELSE LET first == CHOOSE r \in S : \A q \in S : AtOrBefore(r, q) IN <<first>> \o Sorted(S \ {first})

InRange(S, fromXid, fromSeq, toXid, cur) == Sorted({r \in S :
    /\ ~AtOrBefore(r, [xid |-> fromXid, seq |-> fromSeq]) /\ r.xid <= toXid /\ Visible(r.xid, cur)})

RECURSIVE Stragglers(_, _, _)
Stragglers(S, xs, c) ==
    IF xs = {} THEN <<>>
    ELSE LET x == CHOOSE y \in xs : \A z \in xs : y <= z IN
         InRange(S, x, IF x = c.pos.xid THEN c.pos.seq ELSE 0, x, c.cur) \o Stragglers(S, xs \ {x}, c)

WindowRows(S, c) ==
    IF Bug = "one_position" THEN Sorted({r \in S : ~AtOrBefore(r, c.pos)})
    ELSE IF c.pos.xid >= c.prev.xmax THEN InRange(S, c.pos.xid, c.pos.seq, c.cur.xmax, c.cur)
    ELSE Stragglers(S, {x \in c.prev.xip : x >= c.pos.xid /\ Visible(x, c.cur)}, c)
         \o InRange(S, c.prev.xmax, 0, c.cur.xmax, c.cur)

Init ==
    /\ xids = [t \in All |-> 0] /\ nextXid = 1 /\ over = {} /\ committed = {}
    /\ rows = {} /\ nextSeq = 1 /\ claims = {} /\ head = {} /\ nextId = 1 /\ lane = Nobody
    /\ pc = [c \in Claimers |-> "idle"] /\ cursor = [c \in Claimers |-> Beginning] /\ taken = [c \in Claimers |-> <<>>]
    /\ handed = <<>> /\ before = {} /\ missed = FALSE

(* ---- Producers ---- *)

Write(t) ==
    /\ IF xids[t] = 0
       THEN /\ xids' = [xids EXCEPT ![t] = nextXid]
            /\ nextXid' = nextXid + 1
            /\ before' = before \cup {<<x, nextXid>> : x \in committed}
       ELSE UNCHANGED <<xids, nextXid, before>>
    /\ rows' = rows \cup {[xid |-> xids'[t], seq |-> nextSeq]}
    /\ nextSeq' = nextSeq + 1
    /\ UNCHANGED <<over, committed, claims, head, nextId, lane, pc, cursor, taken, handed, missed>>

WrittenBy(t) == {r \in rows : r.xid = xids[t] /\ xids[t] # 0}

EnqueueJobs == \E p \in Producers : xids[p] \notin over /\ Cardinality(WrittenBy(p)) < MaxRows /\ Write(p)

EndTransaction(t, commits) ==
    /\ over' = over \cup {xids[t]}
    /\ committed' = IF commits THEN committed \cup {xids[t]} ELSE committed

Commit == \E p \in Producers :
    /\ xids[p] # 0 /\ xids[p] \notin over
    /\ EndTransaction(p, TRUE)
    /\ UNCHANGED <<xids, nextXid, rows, nextSeq, claims, head, nextId, lane, pc, cursor, taken, handed, before, missed>>

Abort == \E p \in Producers :
    /\ xids[p] # 0 /\ xids[p] \notin over
    /\ EndTransaction(p, FALSE)
    /\ rows' = rows \ WrittenBy(p)
    /\ UNCHANGED <<xids, nextXid, nextSeq, claims, head, nextId, lane, pc, cursor, taken, handed, before, missed>>

(* ---- Claimers ---- *)

(* In the claimer's own transaction, before its claim or after it. *)
EnqueueInOwnTransaction == \E c \in Claimers :
    /\ MaxOwnRows > 0 /\ pc[c] \in {"idle", "claimed"} /\ Cardinality(WrittenBy(c)) < MaxOwnRows
    /\ nextId <= MaxClaims \/ pc[c] = "claimed"
    /\ Write(c)

TryLockLane == \E c \in Claimers :
    /\ pc[c] = "idle" /\ lane = Nobody /\ nextId <= MaxClaims
    /\ lane' = c
    /\ pc' = [pc EXCEPT ![c] = "locked"]
    /\ UNCHANGED <<xids, nextXid, over, committed, rows, nextSeq, claims, head, nextId, cursor, taken, handed, before, missed>>

(* A new statement after the lock. When the window is used up the next one is taken; that is done once. *)
ReadCursor == \E c \in Claimers :
    /\ pc[c] = "locked"
    /\ LET now == LaneCursor
           isUsedUp == now.prev = now.cur \/ WindowRows(Seen(xids[c]), now) = <<>>
       IN cursor' = [cursor EXCEPT ![c] =
            IF isUsedUp THEN [id |-> now.id, prev |-> now.cur, cur |-> SettledSnapshot(xids[c]),
                              pos |-> IF Bug = "one_position" THEN now.pos ELSE Origin] ELSE now]
    /\ pc' = [pc EXCEPT ![c] = "read"]
    /\ UNCHANGED <<xids, nextXid, over, committed, rows, nextSeq, claims, head, nextId, lane, taken, handed, before, missed>>

Take(s, n) == SubSeq(s, 1, IF Len(s) < n THEN Len(s) ELSE n)

(* Another statement, with a later snapshot: what has committed since is kept out by the window. *)
ClaimJobs == \E c \in Claimers, limit \in Limits :
    /\ pc[c] = "read"
    /\ LET at == cursor[c]
           got == Take(WindowRows(Seen(xids[c]), at), limit)
           last == IF got = <<>> THEN at.pos ELSE [xid |-> got[Len(got)].xid, seq |-> got[Len(got)].seq]
       IN /\ taken' = [taken EXCEPT ![c] = got]
          (* Fewer than asked for: the window is used up, and the cursor says so by being empty. *)
          /\ cursor' = [cursor EXCEPT ![c] =
                IF Bug = "one_position" THEN [at EXCEPT !.id = nextId, !.pos = last]
                ELSE IF Len(got) < limit THEN [id |-> nextId, prev |-> at.cur, cur |-> at.cur, pos |-> Origin]
                ELSE [id |-> nextId, prev |-> at.prev, cur |-> at.cur, pos |-> last]]
          /\ missed' = (missed \/ (got = <<>> /\ \E r \in rows :
                /\ r.xid \in committed /\ Visible(r.xid, at.cur)
                /\ \A k \in DOMAIN handed : handed[k] # r))
    /\ nextId' = nextId + 1
    /\ pc' = [pc EXCEPT ![c] = "claimed"]
    /\ UNCHANGED <<xids, nextXid, over, committed, rows, nextSeq, claims, head, lane, handed, before>>

(* A claim that hands nothing out writes no row. A claimer's next transaction gets a new id. *)
EndClaim(c, commits) ==
    /\ pc[c] = "claimed"
    /\ lane' = Nobody
    /\ pc' = [pc EXCEPT ![c] = "idle"]
    /\ taken' = [taken EXCEPT ![c] = <<>>]
    /\ cursor' = [cursor EXCEPT ![c] = Beginning]
    /\ IF xids[c] # 0
       THEN EndTransaction(c, commits) /\ xids' = [xids EXCEPT ![c] = 0]
       ELSE UNCHANGED <<xids, over, committed>>
    /\ UNCHANGED <<nextXid, nextSeq, head, nextId, before, missed>>

CommitClaim == \E c \in Claimers :
    /\ EndClaim(c, TRUE)
    /\ claims' = IF taken[c] = <<>> THEN claims ELSE claims \cup {cursor[c]}
    /\ handed' = handed \o taken[c]
    /\ UNCHANGED rows

AbortClaim == \E c \in Claimers :
    /\ EndClaim(c, FALSE)
    /\ rows' = rows \ WrittenBy(c)
    /\ UNCHANGED <<claims, handed>>

(* ---- Pruning ---- *)

(* A slot whose claims have ended goes. When the lane's newest claim row lies in it the cursor is saved first, under the lane's *)
(* lock; which rows a slot holds says nothing about their age.                                                                 *)
PruneRing == \E gone \in SUBSET claims :
    /\ gone # {} /\ Cardinality(gone) <= 2
    /\ IF Newest(claims) \in gone
       THEN lane = Nobody /\ head' = {LaneCursor}
       ELSE UNCHANGED head
    /\ claims' = claims \ gone
    /\ UNCHANGED <<xids, nextXid, over, committed, rows, nextSeq, nextId, lane, pc, cursor, taken, handed, before, missed>>

Next == EnqueueJobs \/ Commit \/ Abort \/ EnqueueInOwnTransaction \/ TryLockLane \/ ReadCursor \/ ClaimJobs \/ CommitClaim
        \/ AbortClaim \/ PruneRing

Spec == Init /\ [][Next]_vars

Symmetry == Permutations(Producers) \cup Permutations(Claimers)

(* ---- What must hold ---- *)

IsHanded(r) == \E k \in DOMAIN handed : handed[k] = r

(* R3: no row is handed out twice. *)
NoneTwice == \A i, j \in DOMAIN handed : handed[i] = handed[j] => i = j

(* R5: nothing that was not handed out lies behind the cursor, committed or still to commit. *)
NoneLost == \A r \in rows : IsConsumed(r, LaneCursor) => IsHanded(r)

(* And nothing handed out lies ahead of it. *)
NoneAhead == \A k \in DOMAIN handed : IsConsumed(handed[k], LaneCursor)

(* What is not behind the cursor is found: an empty claim means that there was nothing. *)
NoneOverlooked == ~missed

(* Of two transactions of which one had committed before the other began to write, the first one's rows go first; within a   *)
(* transaction they go in its order.                                                                                         *)
CausalOrder == \A j \in DOMAIN handed : \A r \in rows :
    (<<r.xid, handed[j].xid>> \in before \/ (r.xid = handed[j].xid /\ r.seq < handed[j].seq))
        => \E i \in 1..(j - 1) : handed[i] = r

(* Index ranges and predicate are two texts of one fact. *)
RangesAreThePredicate ==
    LET c == LaneCursor IN Bug = "none" =>
        WindowRows(Seen(0), c) = Sorted({r \in Seen(0) : Visible(r.xid, c.cur) /\ ~IsConsumed(r, c)})
==================================================================================================================
