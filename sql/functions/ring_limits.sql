-- ring_limits: after how many seconds or bytes a ring's current slot is sealed. Bodies and claims turn four times in the time that
-- completed jobs are kept, so that of eight slots some are always free; leases turn to shed what their updates left behind.
-- Reads:  storage_settings
-- Writes: nothing
-- Locks:  none
-- Model:  RingLimits
CREATE OR REPLACE FUNCTION awa.ring_limits(p_ring text, OUT rotate_after float8, OUT rotate_bytes int8)
LANGUAGE sql STABLE AS $$
    SELECT CASE p_ring WHEN 'lease' THEN 'infinity' WHEN 'terminal' THEN s.terminal_retention / 4
                       ELSE s.completed_retention / 4 END,
           CASE p_ring WHEN 'lease' THEN s.lease_rotate_bytes ELSE s.history_max_bytes / 4 END
    FROM awa.storage_settings s
$$;
