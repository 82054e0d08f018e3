--------------------------------------------------- MODULE Replay ---------------------------------------------------
(* Can the events of a real run have happened? Each trace is what one job's processes wrote (awa.trace), put in order *)
(* by tla/replay.py. A behaviour follows it event by event; between two events the database may have done by itself   *)
(* what no process writes a line about for a single job: promoting, declaring dead, rescuing, expiring. `at` is how    *)
(* far the trace t has been followed; the furthest of all behaviours is printed, and what follows it is the first      *)
(* event that nothing explains.                                                                                       *)
EXTENDS Lifecycle, TLC, Traces

VARIABLES t, at

Event == Traces[t][at + 1]
More == at < Len(Traces[t])

ReplayInit == Init /\ t \in DOMAIN Traces /\ at = 0

(* The receipt of the claim that gave the lease out. *)
Receipts == {ReceiptOf(c) : c \in {d \in claims : RunLease(d) = Event.lease}}

Enqueued == EnqueueJobs /\ (IF Event.deferred THEN deferred' # {} ELSE rows' # <<>>)
            /\ \A row \in deferred' \cup {rows'[i] : i \in DOMAIN rows'} : row.max = Event.max

Claimed_ ==
    /\ passed < Len(rows) /\ passed + 1 \notin buried
    /\ LET row == rows[passed + 1] IN row.lease + 1 = Event.lease /\ row.attempt + 1 = Event.attempt /\ row.max = Event.max
    /\ ClaimJobs(Event.runtime)

Ended(outcome) == \E rc \in Receipts :
    CASE outcome = "waiting" -> Park(rc)
      [] OTHER -> FinalizeAttempts(rc, outcome, Event.again, Event.soon)

Answered == \E rc \in Receipts : Leased(rc) # {} /\ FinalizeAttempts(rc, Event.outcome, Event.again, Event.soon)

Refused == (\A rc \in Receipts : ~Accepted(rc)) /\ UNCHANGED vars

Happens ==
    CASE Event.event = "enqueued" -> Enqueued
      [] Event.event = "claimed" -> Claimed_
      [] Event.event = "saved" -> \E rc \in Receipts : SaveProgress(rc)
      [] Event.event = "ended" -> Ended(Event.outcome)
      [] Event.event = "answered" -> Answered
      [] Event.event = "cancelled" -> CancelJob
      [] Event.event = "deleted" -> DeleteJob
      [] Event.event = "retried" -> RetryJobs
      [] Event.event = "refused" -> Refused

(* A claim of a process that was killed before it could write its line: the leases show the gap. *)
UnseenClaim ==
    /\ Event.event = "claimed" /\ passed < Len(rows) /\ rows[passed + 1].lease + 1 < Event.lease
    /\ \E r \in Runtimes : ClaimJobs(r)

Silently ==
    /\ Event.event # "enqueued"
    /\ \/ EnqueueJobs                          \* by a process that writes no trace
       \/ PromoteDue \/ MaterializeAttempts \/ RescueDead \/ RescueExpired \/ UnseenClaim \/ CrashServer
       \/ \E r \in Runtimes : DeclareDead(r)

Follow == More /\ Happens /\ at' = at + 1 /\ t' = t
ByItself == More /\ Silently /\ UNCHANGED <<t, at>>

ReplaySpec == ReplayInit /\ [][Follow \/ ByItself]_<<vars, t, at>>

Observe == PrintT(<<"followed", t, at>>)
=====================================================================================================================
