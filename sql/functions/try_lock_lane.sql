-- try_lock_lane: takes a lane's claim lock until the transaction ends, or says false at once. The class number is "awa" and 1.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  lane advisory (by TRY)
-- Model:  TryLockLane
CREATE OR REPLACE FUNCTION awa.try_lock_lane(p_lane_id int4) RETURNS bool
LANGUAGE sql VOLATILE AS $$
    SELECT pg_try_advisory_xact_lock(1635213569, p_lane_id)
$$;
