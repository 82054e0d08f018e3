-- retire_runtime: a process has ended well. With nothing of it open its row goes; otherwise it counts as dead, so that what it
-- could not record is rescued.
-- Reads:  leases, ring_slots and what open_claims reads
-- Writes: runtime_instances and what resign_leader writes
-- Locks:  runtime_instances rows
-- Model:  RetireRuntime
CREATE OR REPLACE FUNCTION awa.retire_runtime(p_runtime_id int8, p_now timestamptz DEFAULT clock_timestamp()) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_epoch int8 := awa.prune_epoch();
BEGIN
    IF EXISTS (SELECT 1 FROM awa.open_claims(p_runtime_id))
       OR EXISTS (SELECT 1 FROM awa.leases l WHERE l.runtime_id = p_runtime_id AND l.state = 'running')
       OR awa.prune_epoch() <> v_epoch THEN  -- a lease that moved under the look would be left to nobody
        UPDATE awa.runtime_instances r SET dead_at = p_now, look_at = p_now
        WHERE r.runtime_id = p_runtime_id AND r.dead_at IS NULL;
    ELSE
        DELETE FROM awa.runtime_instances r WHERE r.runtime_id = p_runtime_id AND r.dead_at IS NULL;
    END IF;
    PERFORM awa.resign_leader(p_runtime_id);
END
$$;
