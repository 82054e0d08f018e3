-- redeliver_claims: the jobs of a claim call whose answer was lost with its connection, in the form claim_jobs gives them.
-- What has ended meanwhile comes without a kind, as cancelled jobs do.
-- p_token is the call's; p_after_claim_id is any claim older than it, and bounds the search.
-- Reads:  lease_claim_batches, queue_lanes, ready_entries, receipt_completion_batches, lease_claim_closures
-- Writes: nothing
-- Locks:  none
-- Model:  RedeliverClaims
CREATE OR REPLACE FUNCTION awa.redeliver_claims(p_runtime_id int8, p_token int8, p_after_claim_id int8)
RETURNS TABLE (
    claim_id int8, claim_slot int2, priority int2, claimed_at timestamptz, deadline_at timestamptz,
    job_id int8, kind text, args json, attempt int2, max_attempts int2, run_lease int4,
    run_at timestamptz, created_at timestamptz, payload jsonb
)
LANGUAGE sql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
    SELECT CASE WHEN i.item = 1 THEN b.claim_id END, CASE WHEN i.item = 1 THEN b.claim_slot END,
           CASE WHEN i.item = 1 THEN l.priority END, CASE WHEN i.item = 1 THEN b.claimed_at END,
           CASE WHEN i.item = 1 THEN b.deadline_at END,
           r.job_id,
           CASE WHEN NOT EXISTS (SELECT 1 FROM awa.closed_items(b.claim_slot, b.claim_id) c WHERE c.item = i.item) THEN r.kind END,
           r.args, (r.attempt + 1)::int2, r.max_attempts, r.run_lease + 1, r.run_at, r.created_at, r.payload
    FROM awa.lease_claim_batches b
    JOIN awa.queue_lanes l ON l.lane_id = b.lane_id
    CROSS JOIN LATERAL unnest(b.job_ids, b.run_leases) WITH ORDINALITY AS i (job_id, run_lease, item)
    JOIN awa.ready_entries r ON r.job_id = i.job_id AND r.run_lease = i.run_lease - 1
    WHERE b.claim_id > p_after_claim_id AND b.runtime_id = p_runtime_id AND b.token = p_token
    ORDER BY b.claim_id, i.item
$$;
