-- get_job: one job as awa.jobs shows it, whatever the size of the history. No row: no such job. Looks again when a slot was pruned
-- meanwhile, so that a job is never missed because it moved, nor shown where it was. A caller under REPEATABLE READ cannot look again: where
-- the job may have moved since its snapshot, 40001 asks it for another transaction.
-- Reads:  ring_slots and what find_job reads
-- Writes: nothing
-- Locks:  none
-- Model:  GetJob
CREATE OR REPLACE FUNCTION awa.get_job(p_job_id int8) RETURNS TABLE (
    job_id int8, queue text, priority int2, kind text, args json, state text, attempt int2, max_attempts int2,
    run_lease int4, run_at timestamptz, created_at timestamptz, claimed_at timestamptz, finalized_at timestamptz,
    runtime_id int8, payload jsonb
)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_epoch int8;
BEGIN
    LOOP
        v_epoch := awa.prune_epoch();
        SELECT f.* INTO job_id, queue, priority, kind, args, state, attempt, max_attempts, run_lease, run_at, created_at, claimed_at,
                        finalized_at, runtime_id, payload
        FROM awa.find_job(p_job_id) f;
        EXIT WHEN awa.prune_epoch() = v_epoch;
    END LOOP;
    IF job_id IS NOT NULL THEN
        RETURN NEXT;
    ELSIF current_setting('transaction_isolation') <> 'read committed' AND awa.snapshot_is_pruned() THEN
        RAISE EXCEPTION 'awa.get_job: a slot was pruned since the snapshot of this % transaction',
            upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'serialization_failure', HINT = 'Retry the transaction.';
    END IF;
END
$$;
