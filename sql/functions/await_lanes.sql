-- await_lanes: whether every lane was free for a moment since the call began; false when one stays busy for longer than 10 ms. A claim
-- reads the current slot and draws its id under its lane's lock, and keeps the lock until it commits: what the next statement does not
-- see of claims began after this call did. The caller has let go of every lane, and none is held on return.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  lane advisory (a wait of 10 ms each, one at a time)
-- Model:  AwaitLanes
CREATE OR REPLACE FUNCTION awa.await_lanes() RETURNS bool
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_lane_id int4;
    v_busy bool;
BEGIN
    PERFORM awa.need_read_committed('await_lanes');
    -- One look at the lock table finds the lanes that are held; the others are free at this moment. 1635213569: see try_lock_lane.
    FOR v_lane_id IN
        SELECT k.objid::int8::int4 FROM pg_locks k
        WHERE k.locktype = 'advisory' AND k.classid = 1635213569 AND k.objsubid = 2 AND k.granted AND k.objid::int8 < 1::int8 << 31
          AND k.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
        ORDER BY 1
    LOOP
        v_busy := true;
        BEGIN
            v_busy := NOT awa.wait_lock_lane(v_lane_id);
            -- Undoes the block, and with it the lock: to have had it is enough.
            RAISE EXCEPTION USING ERRCODE = 'AWA04';
        EXCEPTION WHEN SQLSTATE 'AWA04' THEN
            NULL;
        END;
        IF v_busy THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$$;
