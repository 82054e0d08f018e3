-- is_own_row: whether the calling transaction has written a row that it sees, by the row's xmin; savepoints are part of it. For
-- tables without enq_xid. An xmin below the transaction's own id is somebody else's, and one above it is either of a savepoint of
-- the caller or of a transaction that is over.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  none
-- Model:  IsOwnRow
CREATE OR REPLACE FUNCTION awa.is_own_row(p_xmin xid) RETURNS bool
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_own int8 := pg_current_xact_id_if_assigned()::text::int8;
    v_above int8;
BEGIN
    IF v_own IS NULL THEN
        RETURN false;
    END IF;
    -- xmin has the low half of an id only. A row that was frozen billions of transactions ago can look like a coming one, whose
    -- status must not be asked for: no transaction has so many savepoints.
    v_above := (p_xmin::text::int8 - v_own % 4294967296 + 4294967296) % 4294967296;
    RETURN v_above < 100000000 AND pg_xact_status((v_own + v_above)::text::xid8) = 'in progress';
END
$$;
