-- complete_jobs: ends items of claims as successes. One array element per claim; p_items holds int2[] literals, NULL for
-- every item of the claim. Returns only what was not accepted: 'busy' (another transaction is ending items of that claim:
-- hand it in again) and 'refused' (no such claim of this runtime, no such item, or the item has ended: it changes nothing).
-- A flush handed in again after a lost acknowledgement finds its own rows and succeeds without writing. A claim that is refused
-- whole may have been pruned while some of its attempts went on as leases: handed in again item by item, those are accepted.
-- Reads:  lease_claim_batches, receipt_completion_batches, lease_claim_closures and what finalize_attempts reads
-- Writes: receipt_completion_batches and what finalize_attempts writes
-- Locks:  claim advisory (by TRY, sorted)
-- Model:  CompleteJobs
CREATE OR REPLACE FUNCTION awa.complete_jobs(
    p_runtime_id int8, p_flush_id int8, p_claim_slots int2[], p_claim_ids int8[], p_tokens int8[], p_items text[]
) RETURNS TABLE (claim_id int8, item int2, verdict text)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_order int4[];
    v_i int4;
    v_n int4;
    v_items int2[];
    v_open int2[];
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'awa.complete_jobs needs READ COMMITTED, not %', upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'AWA01', HINT = 'Complete on a connection with the default isolation level.';
    END IF;
    SELECT array_agg(i.ord ORDER BY i.claim_id) INTO v_order
    FROM unnest(p_claim_ids) WITH ORDINALITY AS i (claim_id, ord);
    FOREACH v_i IN ARRAY coalesce(v_order, '{}') LOOP
        IF NOT awa.try_lock_claim(p_claim_ids[v_i]) THEN
            RETURN QUERY SELECT p_claim_ids[v_i], NULL::int2, 'busy';
            CONTINUE;
        END IF;
        -- New statements after the lock: they see every ending committed by its previous holders.
        SELECT b.n INTO v_n FROM awa.lease_claim_batches b
        WHERE b.claim_slot = p_claim_slots[v_i] AND b.claim_id = p_claim_ids[v_i]
          AND b.token = p_tokens[v_i] AND b.runtime_id = p_runtime_id;
        IF NOT FOUND AND p_items[v_i] IS NULL THEN
            RETURN QUERY SELECT p_claim_ids[v_i], NULL::int2, 'refused';
            CONTINUE;
        END IF;
        v_items := coalesce(p_items[v_i]::int2[], ARRAY(SELECT generate_series(1, v_n)::int2));
        v_open := ARRAY(
            SELECT DISTINCT i.item FROM unnest(v_items) AS i (item)
            WHERE i.item BETWEEN 1 AND v_n
            EXCEPT
            SELECT c.item FROM awa.closed_items(p_claim_slots[v_i], p_claim_ids[v_i]) c
        );
        IF cardinality(v_open) > 0 THEN
            INSERT INTO awa.receipt_completion_batches (claim_id, flush_id, completed_at, n, claim_slot, items)
            VALUES (p_claim_ids[v_i], p_flush_id, clock_timestamp(), cardinality(v_open), p_claim_slots[v_i],
                    CASE WHEN cardinality(v_open) < v_n THEN v_open END);
        END IF;
        IF cardinality(v_open) < cardinality(v_items) THEN
            -- Attempts that have got a lease meanwhile end by it; the rest is refused, or was accepted when this flush came first.
            RETURN QUERY
            SELECT f.claim_id, f.item, f.verdict
            FROM awa.finalize_attempts(p_runtime_id, p_flush_id, (
                SELECT json_agg(json_build_object(
                    'claim_slot', p_claim_slots[v_i], 'claim_id', p_claim_ids[v_i], 'token', p_tokens[v_i], 'item', i.item,
                    'outcome', 'completed'))
                FROM unnest(v_items) AS i (item) WHERE i.item <> ALL (v_open))) AS f;
        END IF;
    END LOOP;
END
$$;
