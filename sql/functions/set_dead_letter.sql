-- set_dead_letter: whether exhausted jobs of a kind or of a queue go to the dead-letter queue; NULL leaves it to the next rule.
-- Exactly one of p_kind and p_queue is given.
-- Reads:  nothing
-- Writes: kind_controls, queue_controls
-- Locks:  none
-- Model:  SetDeadLetter
CREATE OR REPLACE FUNCTION awa.set_dead_letter(p_kind text, p_queue text, p_dead_letter bool) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF p_kind IS NOT NULL THEN
        INSERT INTO awa.kind_controls AS k (kind, dead_letter) VALUES (p_kind, p_dead_letter)
        ON CONFLICT (kind) DO UPDATE SET dead_letter = excluded.dead_letter
        WHERE k.dead_letter IS DISTINCT FROM excluded.dead_letter;
    ELSE
        INSERT INTO awa.queue_controls AS q (queue, dead_letter) VALUES (p_queue, p_dead_letter)
        ON CONFLICT (queue) DO UPDATE SET dead_letter = excluded.dead_letter
        WHERE q.dead_letter IS DISTINCT FROM excluded.dead_letter;
    END IF;
END
$$;
