-- take_unique_key: gives a key to a job unless it belongs to another. Returns NULL when the key is the job's now, else the id of
-- its holder. Never raises for a conflict. With p_replace a holder that has not begun is cancelled and makes room. p_own: jobs of
-- the caller's that are not written yet and hold their keys all the same. A key taken by an open transaction makes the others who
-- want that key wait for its end; nobody else. With p_replace it raises 55P03 when the holder's lane is busy for too long.
-- Reads:  job_unique_claims and what get_job and cancel_job read
-- Writes: job_unique_claims and, with p_replace, what cancel_job writes
-- Locks:  job_unique_claims row; with p_replace the locks of cancel_job
-- Model:  TakeUniqueKey
CREATE OR REPLACE FUNCTION awa.take_unique_key(
    p_key bytea, p_job_id int8, p_expires_at timestamptz, p_states text[], p_replace bool, p_own int8[], p_now timestamptz
) RETURNS int8
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_patience  CONSTANT int4 := 100;  -- times 10 ms, for which cancel_job waits for a lane
    v_holder    awa.job_unique_claims;
    v_cancelled int8;  -- the holder that was cancelled here and makes room, whatever states its key names
    v_verdict   text;
    v_busy      int4 := 0;
BEGIN
    LOOP
        INSERT INTO awa.job_unique_claims (unique_key, job_id, expires_at, states)
        VALUES (p_key, p_job_id, p_expires_at, p_states)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN NULL;
        END IF;
        -- Without a lock: a conflict that changes nothing must make nobody wait for this transaction.
        SELECT u.* INTO v_holder FROM awa.job_unique_claims u WHERE u.unique_key = p_key;
        CONTINUE WHEN NOT FOUND;
        IF v_holder.job_id = ANY (p_own) THEN
            RETURN v_holder.job_id;
        END IF;
        IF awa.holds_unique_key(v_holder.job_id, v_holder.expires_at, v_holder.states, p_now) THEN
            IF NOT p_replace OR NOT EXISTS (SELECT 1 FROM awa.get_job(v_holder.job_id) h
                                            WHERE h.state IN ('available', 'scheduled', 'retryable')) THEN
                RETURN v_holder.job_id;
            END IF;
            v_verdict := awa.cancel_job(v_holder.job_id);
            v_busy := v_busy + (v_verdict = 'busy')::int4;
            IF v_busy >= v_patience THEN
                RAISE EXCEPTION 'awa.take_unique_key: the job to be replaced, %, cannot be cancelled now', v_holder.job_id
                    USING ERRCODE = '55P03';
            END IF;
            -- Otherwise it has begun, ended or moved under the look: what it is now decides.
            CONTINUE WHEN v_verdict <> 'cancelled';
            v_cancelled := v_holder.job_id;
        END IF;
        -- Lock, then look again in a new statement: a retry may have brought the holder back to life, which leaves its id in the row.
        SELECT u.* INTO v_holder FROM awa.job_unique_claims u WHERE u.unique_key = p_key FOR UPDATE;
        CONTINUE WHEN NOT FOUND OR (
            v_holder.job_id IS DISTINCT FROM v_cancelled
            AND awa.holds_unique_key(v_holder.job_id, v_holder.expires_at, v_holder.states, p_now));
        UPDATE awa.job_unique_claims u SET job_id = p_job_id, expires_at = p_expires_at, states = p_states
        WHERE u.unique_key = p_key AND u.job_id = v_holder.job_id;
        IF FOUND THEN
            RETURN NULL;
        END IF;
    END LOOP;
END
$$;
