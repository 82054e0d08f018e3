-- Completions are counted while their claim slot is still being filled: what a fast count has to look at does not grow with history.

ALTER TABLE awa.ring_slots
    ADD COLUMN counted_to  int8   NOT NULL DEFAULT 0,     -- of a claim slot: live counts have the completions of the claims up to this one
    ADD COLUMN uncounted   int8[] NOT NULL DEFAULT '{}';  -- but of these, which had an open item when they were looked at
-- No claim comes to a slot that is proved closed, and all that are in it were counted.
UPDATE awa.ring_slots SET counted_to = 9223372036854775807 WHERE closed_at IS NOT NULL;
