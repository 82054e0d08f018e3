-- elect_leader: whether p_runtime_id leads for the next p_ttl seconds: it did, or nobody does any more.
-- Reads:  leader
-- Writes: leader
-- Locks:  leader row
-- Model:  ElectLeader
CREATE OR REPLACE FUNCTION awa.elect_leader(p_runtime_id int8, p_ttl float8, p_now timestamptz DEFAULT clock_timestamp())
RETURNS bool
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    -- Those who do not lead only read, so that a fleet of hundreds writes no more than one.
    PERFORM 1 FROM awa.leader l WHERE l.runtime_id <> p_runtime_id AND l.expires_at >= p_now;
    IF FOUND THEN
        RETURN false;
    END IF;
    UPDATE awa.leader l SET runtime_id = p_runtime_id, expires_at = p_now + make_interval(secs => p_ttl)
    WHERE l.runtime_id = p_runtime_id OR l.expires_at < p_now;
    RETURN FOUND;
END
$$;
