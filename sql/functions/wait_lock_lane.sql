-- wait_lock_lane: as try_lock_lane, but waits a few milliseconds: the section it guards takes less than one.
-- Hazard: to be called while holding no lane, or two claimers could wait for each other.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  lane advisory
-- Model:  WaitLockLane
CREATE OR REPLACE FUNCTION awa.wait_lock_lane(p_lane_id int4) RETURNS bool
LANGUAGE plpgsql VOLATILE SET lock_timeout = '10ms' AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1635213569, p_lane_id);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$$;
