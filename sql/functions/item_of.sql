-- item_of: the item under which a claim took a job with a run_lease. With the lease: a job that was cancelled while it waited and then
-- retried can be in one claim twice, buried and running.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  none
-- Model:  ItemOf
CREATE OR REPLACE FUNCTION awa.item_of(p_claim awa.lease_claim_batches, p_job_id int8, p_run_lease int4) RETURNS int2
LANGUAGE sql IMMUTABLE AS $$
    SELECT i.item::int2
    FROM unnest(p_claim.job_ids, p_claim.run_leases) WITH ORDINALITY AS i (job_id, run_lease, item)
    WHERE i.job_id = p_job_id AND i.run_lease = p_run_lease
$$;
