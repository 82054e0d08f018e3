------------------------------------------------ MODULE Lifecycle ------------------------------------------------
(* One job's whole life, as the rows that tell of it.                                                             *)
(*                                                                                                                *)
(* Jobs share nothing but lanes and claims, so one job is enough: the order of a lane is SnapshotCursor's         *)
(* question, the reclaiming of slots RingReclaim's, locks LockOrder's. A claim here has one item. What a function *)
(* does under its claim's lock is one step. The cursor is the set of ready rows it has passed.                    *)
(*                                                                                                                *)
(* Actions bear the names of sql/functions: EnqueueJobs, ClaimJobs, CompleteJobs, FinalizeAttempts, SaveProgress, *)
(* EndExternal, MaterializeAttempts, RescueDead, RescueExpired, PromoteDue, CancelJob, DeleteJob, RetryJobs,      *)
(* DeadLetterJobs, PurgeDeadLetters, DeclareDead.                                                                 *)
EXTENDS Naturals, Sequences, FiniteSets

CONSTANTS
    Runtimes,       \* processes that claim
    MaxLease,       \* bound: a job is claimed so often at most
    MaxAttempts,    \* the values of max_attempts a job may be given
    MaxCrashes,     \* bound: crashes of the server that forget a claim which had not reached the disk
    MaxRetries,     \* bound: retries by hand
    Bug             \* "none", or the mistake that is built in

VARIABLES
    exists,         \* the job was enqueued and not deleted
    rows,           \* ready_entries: the job's rows in position order, [lease, attempt, max]; lease: claims before it
    passed,         \* how many of them the lane's cursor has passed
    buried,         \* ready_tombstones: indexes of rows that no longer count
    claims,         \* lease_claim_batches: [id, token, runtime, row]
    closures,       \* by claim id: the endings recorded for it, [completed, own], in receipt_completion_batches and
                    \* lease_claim_closures; own: it was presented with this claim's token
    tombs,          \* receipt_completion_tombstones: claims whose completion was deleted
    deferred,       \* deferred_jobs: at most one [lease, attempt, max]
    leases,         \* leases: [id, token, runtime, waiting, lease, attempt, max]
    done,           \* done_entries: [state, lease, max]
    dlq,            \* dlq_entries: [lease, max]
    receipts,       \* what processes remember, whatever becomes of the database: [id, token, runtime]
    dead,           \* runtimes that were declared dead
    late,           \* of those, the ones that had a claim under way
    tokens,         \* how many tokens were drawn: a token is random, so it never comes again
    fails,          \* history: attempts counted since the job was enqueued or retried
    crashes, retries

vars == <<exists, rows, passed, buried, claims, closures, tombs, deferred, leases, done, dlq, receipts, dead, late, tokens,
          fails, crashes, retries>>

Ids == 1..(MaxLease + 1)
Row(c) == rows[c.row]
RunLease(c) == Row(c).lease + 1

(* closed_items and its negation *)
IsOpen(c) == closures[c.id] = <<>>
IsCompleted(c) == \E k \in DOMAIN closures[c.id] : closures[c.id][k].completed
(* awa.jobs: in which states the rows say the job is. The tombstoned row of a cancelled job counts nowhere. *)
States ==
    (IF \E i \in (passed + 1)..Len(rows) : i \notin buried THEN {"available"} ELSE {})
    \cup (IF \E c \in claims : IsOpen(c) THEN {"running"} ELSE {})
    \cup {IF l.waiting THEN "waiting" ELSE "leased" : l \in leases}
    \cup (IF deferred # {} THEN {"deferred"} ELSE {})
    \cup {d.state : d \in done}
    \cup (IF dlq # {} THEN {"dead_lettered"} ELSE {})
    \cup (IF \E c \in claims : c.id \notin tombs /\ IsCompleted(c)
          THEN {"completed"} ELSE {})

(* In how many places: two open claims are two places in one state. *)
Places ==
    Cardinality({i \in (passed + 1)..Len(rows) : i \notin buried}) + Cardinality({c \in claims : IsOpen(c)})
    + Cardinality(leases) + Cardinality(deferred) + Cardinality(done) + Cardinality(dlq)
    + Cardinality({c \in claims : c.id \notin tombs /\ IsCompleted(c)})

Init ==
    /\ exists = FALSE /\ rows = <<>> /\ passed = 0 /\ buried = {} /\ claims = {}
    /\ closures = [i \in Ids |-> <<>>] /\ tombs = {} /\ deferred = {} /\ leases = {} /\ done = {} /\ dlq = {}
    /\ receipts = {} /\ dead = {} /\ late = {} /\ tokens = 0 /\ fails = 0 /\ crashes = 0 /\ retries = 0

(* ---- Into the queue ---- *)

EnqueueJobs == \E max \in MaxAttempts, now \in BOOLEAN :
    /\ ~exists /\ rows = <<>> /\ claims = {} /\ deferred = {} /\ retries = 0
    /\ exists' = TRUE
    /\ IF now THEN rows' = <<[lease |-> 0, attempt |-> 0, max |-> max]>> /\ UNCHANGED deferred
              ELSE deferred' = {[lease |-> 0, attempt |-> 0, max |-> max]} /\ UNCHANGED rows
    /\ UNCHANGED <<passed, buried, claims, closures, tombs, leases, done, dlq, receipts, dead, late, tokens, fails, crashes,
                   retries>>

PromoteDue == \E d \in deferred :
    /\ deferred' = {}
    /\ rows' = Append(rows, d)
    /\ UNCHANGED <<exists, passed, buried, claims, closures, tombs, leases, done, dlq, receipts, dead, late, tokens, fails,
                   crashes, retries>>

(* ---- Claiming ---- *)

NextId == 1 + Cardinality(claims)          \* the sequence; after a crash it goes back with the claim that was forgotten
MayClaim(r) == r \notin dead \/ r \in late

(* A row whose job was cancelled is taken, closed as buried in the same statement, and handed to nobody. *)
ClaimJobs(r) ==
    /\ MayClaim(r) /\ passed < Len(rows) /\ rows[passed + 1].lease < MaxLease
    /\ LET c == [id |-> NextId, token |-> tokens + 1, runtime |-> r, row |-> passed + 1] IN
        /\ claims' = claims \cup {c}
        /\ IF c.row \in buried
           THEN closures' = [closures EXCEPT ![c.id] = <<[completed |-> FALSE, own |-> TRUE]>>] /\ UNCHANGED receipts
           ELSE receipts' = receipts \cup {[id |-> c.id, token |-> c.token, runtime |-> r]} /\ UNCHANGED closures
    /\ tokens' = tokens + 1
    /\ passed' = passed + 1
    /\ late' = late \ {r}
    /\ UNCHANGED <<exists, rows, buried, tombs, deferred, leases, done, dlq, dead, fails, crashes, retries>>

DeclareDead(r) ==
    /\ r \notin dead
    /\ dead' = dead \cup {r}
    /\ late' \in {late, late \cup {r}}
    /\ UNCHANGED <<exists, rows, passed, buried, claims, closures, tombs, deferred, leases, done, dlq, receipts, tokens, fails,
                   crashes, retries>>

(* Claims do not wait for the disk: a crash may forget the newest one while the process that got it lives on. *)
CrashServer ==
    /\ crashes < MaxCrashes
    /\ \E c \in claims :
        /\ c.id = Cardinality(claims) /\ IsOpen(c) /\ c.row = passed
        /\ claims' = claims \ {c}
        /\ passed' = passed - 1
    /\ crashes' = crashes + 1
    /\ UNCHANGED <<exists, rows, buried, closures, tombs, deferred, leases, done, dlq, receipts, dead, late, tokens, fails, retries>>

(* ---- Ending ---- *)

(* The guard that complete_jobs and finalize_attempts share: the claim is there, of this call and this runtime, and open. *)
Claimed(rc) == {c \in claims :
    /\ c.id = rc.id
    /\ c.runtime = rc.runtime
    /\ (c.token = rc.token \/ Bug = "ending_ignores_token")
    /\ (IsOpen(c) \/ Bug = "ending_ignores_closure")}
Leased(rc) == {l \in leases : l.id = rc.id /\ l.token = rc.token /\ l.runtime = rc.runtime}
Accepted(rc) == Claimed(rc) # {} \/ Leased(rc) # {}

Closed(c, completed, rc) == [closures EXCEPT ![c.id] = Append(@, [completed |-> completed, own |-> rc.token = c.token])]

Failures == {"failed", "rescued", "expired"}
(* is_exhausted: the only text that decides it *)
IsExhausted(attempt, max) == attempt >= max
Exhausted(outcome, body) ==
    IF Bug = "rescue_ignores_max_attempts" /\ outcome \in {"rescued", "expired"} THEN FALSE
    ELSE IsExhausted(body.attempt + 1, body.max)

Back(body, lease, counted) == [lease |-> lease, attempt |-> body.attempt + (IF counted THEN 1 ELSE 0), max |-> body.max]
ToReady(row) == rows' = Append(rows, row) /\ UNCHANGED <<deferred, done, dlq>>
ToDeferred(row) == deferred' = deferred \cup {row} /\ UNCHANGED <<rows, done, dlq>>
ToDone(state, lease, max) == done' = done \cup {[state |-> state, lease |-> lease, max |-> max]} /\ UNCHANGED <<rows, deferred, dlq>>
ToDead(lease, max) ==                          \* dead_letters: as kind and queue have it
    \/ ToDone("failed", lease, max)
    \/ dlq' = dlq \cup {[lease |-> lease, max |-> max]} /\ UNCHANGED <<rows, deferred, done>>

(* Where finalize_attempts puts a body. again: there may be another try; soon: at once. A success leaves its closure and nothing *)
(* else, unless it is one of a lease.                                                                                           *)
Put(outcome, body, lease, isLeased, again, soon) ==
    CASE outcome = "completed" -> IF isLeased THEN ToDone("stored", lease, body.max) ELSE UNCHANGED <<rows, deferred, done, dlq>>
      [] outcome = "cancelled" -> ToDone("cancelled", lease, body.max)
      [] outcome = "snoozed" -> ToDeferred(Back(body, lease, FALSE))
      [] outcome = "released" -> IF soon THEN ToReady(Back(body, lease, FALSE)) ELSE ToDeferred(Back(body, lease, FALSE))
      [] outcome \in Failures ->
            IF Exhausted(outcome, body) \/ (outcome = "failed" /\ ~again) THEN ToDead(lease, body.max)
            ELSE IF soon /\ outcome # "failed" THEN ToReady(Back(body, lease, TRUE)) ELSE ToDeferred(Back(body, lease, TRUE))

Count(outcome) == fails' = fails + (IF outcome \in Failures THEN 1 ELSE 0)

(* finalize_attempts: any other ending, of an open claim or of a lease. *)
FinalizeAttempts(rc, outcome, again, soon) ==
    /\ outcome # "waiting"
    /\ \/ \E c \in Claimed(rc) :
            /\ closures' = Closed(c, outcome = "completed", rc)
            /\ Put(outcome, Row(c), RunLease(c), FALSE, again, soon)
            /\ UNCHANGED leases
       \/ \E l \in Leased(rc) :
            /\ leases' = leases \ {l}
            /\ Put(outcome, l, l.lease, TRUE, again, soon)
            /\ UNCHANGED closures
    /\ Count(outcome)
    /\ UNCHANGED <<exists, passed, buried, claims, tombs, receipts, dead, late, tokens, crashes, retries>>

(* complete_jobs: the same for a success, without reading the body. *)
CompleteJobs(rc) == FinalizeAttempts(rc, "completed", FALSE, FALSE)

(* The claim's item is closed as materialised and the attempt goes on as a lease. *)
Materialise(rc, waiting) ==
    /\ \/ \E c \in Claimed(rc) :
            /\ closures' = Closed(c, FALSE, rc)
            /\ leases' = leases \cup {[id |-> c.id, token |-> c.token, runtime |-> c.runtime, waiting |-> waiting,
                                       lease |-> RunLease(c), attempt |-> Row(c).attempt, max |-> Row(c).max]}
       \/ \E l \in Leased(rc) : leases' = (leases \ {l}) \cup {[l EXCEPT !.waiting = l.waiting \/ waiting]} /\ UNCHANGED closures
    /\ UNCHANGED <<exists, rows, passed, buried, claims, tombs, deferred, done, dlq, receipts, dead, late, tokens, fails, crashes,
                   retries>>
SaveProgress(rc) == Materialise(rc, FALSE)
Park(rc) == Materialise(rc, TRUE)              \* finalize_attempts, outcome waiting

(* The engine does it by itself to a claim that keeps its slot from being pruned. *)
MaterializeAttempts == \E c \in claims : IsOpen(c) /\ Materialise([id |-> c.id, token |-> c.token, runtime |-> c.runtime], FALSE)

(* What a handler's process may say, at any time, however often, dead or alive. What is not accepted changes nothing. *)
Outcomes == {"completed", "failed", "snoozed", "released", "cancelled"}
FinalizeAttempt == \E rc \in receipts, o \in Outcomes, again, soon \in BOOLEAN : FinalizeAttempts(rc, o, again, soon)
CompleteJob == \E rc \in receipts : CompleteJobs(rc)
SaveSomeProgress == \E rc \in receipts : SaveProgress(rc)
ParkAttempt == \E rc \in receipts : Park(rc)

(* The engine's own endings know the receipt from the database. *)
ReceiptOf(x) == [id |-> x.id, token |-> x.token, runtime |-> x.runtime]
RescueDead == \E soon \in BOOLEAN, o \in {"rescued", "released"} :
    \/ \E c \in claims : c.runtime \in dead /\ IsOpen(c) /\ FinalizeAttempts(ReceiptOf(c), o, TRUE, soon)
    \/ \E l \in leases : l.runtime \in dead /\ ~l.waiting /\ FinalizeAttempts(ReceiptOf(l), o, TRUE, soon)
RescueExpired == \E soon \in BOOLEAN :
    \/ \E c \in claims : IsOpen(c) /\ FinalizeAttempts(ReceiptOf(c), "expired", TRUE, soon)
    \/ \E l \in leases : FinalizeAttempts(ReceiptOf(l), "expired", TRUE, soon)
EndExternal == \E l \in leases, o \in {"completed", "failed", "released"}, again, soon \in BOOLEAN :
    FinalizeAttempts(ReceiptOf(l), o, again, soon)

(* ---- From outside ---- *)

(* What awaits a claim is tombstoned, and the lease that the burying claim will use up is counted now. *)
CancelJob ==
    /\ \/ \E d \in deferred :
            /\ deferred' = {} /\ done' = done \cup {[state |-> "cancelled", lease |-> d.lease, max |-> d.max]}
            /\ UNCHANGED <<rows, buried, closures, leases, dlq, fails>>
       \/ \E i \in (passed + 1)..Len(rows) :
            /\ i \notin buried
            /\ buried' = buried \cup {i}
            /\ done' = done \cup {[state |-> "cancelled", lease |-> rows[i].lease + 1, max |-> rows[i].max]}
            /\ UNCHANGED <<rows, deferred, closures, leases, dlq, fails>>
       \/ \E c \in claims : IsOpen(c) /\ FinalizeAttempts(ReceiptOf(c), "cancelled", TRUE, TRUE)
       \/ \E l \in leases : FinalizeAttempts(ReceiptOf(l), "cancelled", TRUE, TRUE)
    /\ UNCHANGED <<exists, passed, claims, tombs, receipts, dead, late, tokens, crashes, retries>>

DeleteJob ==
    /\ exists /\ exists' = FALSE
    /\ deferred' = {} /\ leases' = {} /\ done' = {} /\ dlq' = {}
    /\ buried' = buried \cup ((passed + 1)..Len(rows))
    /\ closures' = [i \in Ids |-> IF \E c \in claims : c.id = i /\ IsOpen(c) THEN <<[completed |-> FALSE, own |-> TRUE]>>
                                  ELSE closures[i]]
    /\ tombs' = tombs \cup {c.id : c \in {x \in claims : IsCompleted(x)}}
    /\ UNCHANGED <<rows, passed, claims, receipts, dead, late, tokens, fails, crashes, retries>>

(* A job that has failed or was cancelled begins again: its attempts at nought, its leases where they were. *)
RetryJobs ==
    /\ retries < MaxRetries
    /\ \E d \in {x \in done : x.state \in {"failed", "cancelled"}} \cup dlq :
        /\ done' = done \ {d} /\ dlq' = dlq \ {d}
        /\ rows' = Append(rows, [lease |-> d.lease, attempt |-> 0, max |-> d.max])
    /\ retries' = retries + 1 /\ fails' = 0
    /\ UNCHANGED <<exists, passed, buried, claims, closures, tombs, deferred, leases, receipts, dead, late, tokens, crashes>>

DeadLetterJobs == \E d \in {x \in done : x.state = "failed"} :
    /\ done' = done \ {d} /\ dlq' = dlq \cup {[lease |-> d.lease, max |-> d.max]}
    /\ UNCHANGED <<exists, rows, passed, buried, claims, closures, tombs, deferred, leases, receipts, dead, late, tokens, fails,
                   crashes, retries>>

PurgeDeadLetters ==
    /\ dlq # {} /\ dlq' = {} /\ exists' = FALSE
    /\ UNCHANGED <<rows, passed, buried, claims, closures, tombs, deferred, leases, done, receipts, dead, late, tokens, fails,
                   crashes, retries>>

ClaimSome == \E r \in Runtimes : ClaimJobs(r)
DeclareSomeDead == \E r \in Runtimes : DeclareDead(r)

Next == EnqueueJobs \/ PromoteDue \/ ClaimSome \/ DeclareSomeDead \/ CrashServer \/ CompleteJob \/ FinalizeAttempt
        \/ SaveSomeProgress \/ ParkAttempt \/ MaterializeAttempts \/ RescueDead \/ RescueExpired \/ EndExternal \/ CancelJob
        \/ DeleteJob \/ RetryJobs \/ DeadLetterJobs \/ PurgeDeadLetters

Spec == Init /\ [][Next]_vars

(* ---- What must hold ---- *)

(* R1 *)
OneState == Places = (IF exists THEN 1 ELSE 0) /\ Cardinality(States) = Places

(* R2 *)
EndsOnce == \A c \in claims : Len(closures[c.id]) <= 1
NoStrayEvidence == \A i \in Ids : closures[i] # <<>> => \E c \in claims : c.id = i

(* R3: claims in the order of their ids hand out growing leases *)
LeasesIncrease == \A c, d \in claims : c.id < d.id => RunLease(c) < RunLease(d)

(* An ending ends the claim whose receipt it presents, and no other that has its number. *)
EndedByItsOwn == \A c \in claims : \A k \in DOMAIN closures[c.id] : closures[c.id][k].own

(* R19 *)
AtMostMaxAttempts ==
    /\ \A d \in deferred : d.attempt < d.max
    /\ \A i \in DOMAIN rows : rows[i].attempt < rows[i].max
    /\ \A l \in leases : l.attempt < l.max
    /\ \A max \in MaxAttempts : (rows # <<>> /\ rows[Len(rows)].max = max) => fails <= max

TypeOK == /\ passed \in 0..Len(rows) /\ buried \subseteq DOMAIN rows /\ late \subseteq dead /\ Cardinality(deferred) <= 1

(* R4: what has ended stays ended. *)
ClosedStaysClosed == [][\A i \in Ids : closures[i] # <<>> => closures'[i] = closures[i]]_vars
CompletedForGood == [][("completed" \in States \/ "stored" \in States) => (States' = States \/ ~exists')]_vars
==================================================================================================================
