-- unique_holders: of keys, those that belong to a job now: their place in p_keys, from 1, and the holder. For a transaction with an
-- older snapshot, which cannot see who has taken a key since, and to which PostgreSQL says so with an error: ask on another connection.
-- Reads:  job_unique_claims and what holds_unique_key reads
-- Writes: nothing
-- Locks:  none
-- Model:  UniqueHolders
CREATE OR REPLACE FUNCTION awa.unique_holders(p_keys bytea[], p_now timestamptz DEFAULT clock_timestamp())
RETURNS TABLE (place int4, holder int8)
LANGUAGE sql VOLATILE AS $$
    SELECT k.place::int4, u.job_id
    FROM unnest(p_keys) WITH ORDINALITY AS k (unique_key, place)
    JOIN awa.job_unique_claims u ON u.unique_key = k.unique_key
    WHERE awa.holds_unique_key(u.job_id, u.expires_at, u.states, p_now)
$$;
