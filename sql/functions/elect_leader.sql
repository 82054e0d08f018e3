-- elect_leader: whether p_runtime_id leads for the next p_ttl seconds: it did, or nobody does any more. Who would lead for much longer
-- than that was elected by a clock that has been set back since, and leads no more unless it says so anew.
-- Reads:  leader
-- Writes: leader
-- Locks:  leader row
-- Model:  ElectLeader
CREATE OR REPLACE FUNCTION awa.elect_leader(p_runtime_id int8, p_ttl float8, p_now timestamptz DEFAULT clock_timestamp())
RETURNS bool
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_longest timestamptz := p_now + make_interval(secs => 20 * p_ttl);
BEGIN
    -- Those who do not lead only read, so that a fleet of hundreds writes no more than one.
    PERFORM 1 FROM awa.leader l WHERE l.runtime_id <> p_runtime_id AND l.expires_at BETWEEN p_now AND v_longest;
    IF FOUND THEN
        RETURN false;
    END IF;
    UPDATE awa.leader l SET runtime_id = p_runtime_id, expires_at = p_now + make_interval(secs => p_ttl)
    WHERE l.runtime_id = p_runtime_id OR l.expires_at NOT BETWEEN p_now AND v_longest;
    RETURN FOUND;
END
$$;
