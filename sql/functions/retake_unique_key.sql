-- retake_unique_key: gives a job that has ended its unique key again, so that it may be retried: whether that could be. It could not
-- when another job holds the key now. The key has the scope it had, as long as nobody else had it and its period lasts; otherwise it is
-- the job's until that has ended again.
-- Reads:  job_unique_claims and what holds_unique_key reads
-- Writes: job_unique_claims
-- Locks:  job_unique_claims row
-- Model:  RetakeUniqueKey
CREATE OR REPLACE FUNCTION awa.retake_unique_key(p_unique_key bytea, p_job_id int8, p_now timestamptz) RETURNS bool
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_holder awa.job_unique_claims;
    v_kept bool;  -- its scope is what it was
BEGIN
    LOOP
        INSERT INTO awa.job_unique_claims (unique_key, job_id, expires_at, states)
        VALUES (p_unique_key, p_job_id, 'infinity', awa.unfinished_states())
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN true;
        END IF;
        SELECT u.* INTO v_holder FROM awa.job_unique_claims u WHERE u.unique_key = p_unique_key;
        CONTINUE WHEN NOT FOUND;
        IF v_holder.job_id <> p_job_id
           AND awa.holds_unique_key(v_holder.job_id, v_holder.expires_at, v_holder.states, p_now) THEN
            RETURN false;
        END IF;
        SELECT u.* INTO v_holder FROM awa.job_unique_claims u WHERE u.unique_key = p_unique_key FOR UPDATE;
        -- Looked at again, now that it is locked: another retry may have brought the holder back to life meanwhile.
        CONTINUE WHEN NOT FOUND OR (
            v_holder.job_id <> p_job_id
            AND awa.holds_unique_key(v_holder.job_id, v_holder.expires_at, v_holder.states, p_now));
        -- Of the job's own key too: whoever takes it at this moment changes the holder, and is met by the next round.
        v_kept := v_holder.job_id = p_job_id AND v_holder.expires_at > p_now;
        UPDATE awa.job_unique_claims u
        SET job_id = p_job_id, expires_at = CASE WHEN v_kept THEN u.expires_at ELSE 'infinity' END,
            states = CASE WHEN v_kept THEN u.states ELSE awa.unfinished_states() END
        WHERE u.unique_key = p_unique_key AND u.job_id = v_holder.job_id;
        IF FOUND THEN
            RETURN true;
        END IF;
    END LOOP;
END
$$;
