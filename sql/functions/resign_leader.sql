-- resign_leader: lets the next one lead at once.
-- Reads:  nothing
-- Writes: leader
-- Locks:  leader row
-- Model:  ResignLeader
CREATE OR REPLACE FUNCTION awa.resign_leader(p_runtime_id int8) RETURNS void
LANGUAGE sql VOLATILE AS $$
    UPDATE awa.leader l SET expires_at = '-infinity' WHERE l.runtime_id = p_runtime_id
$$;
