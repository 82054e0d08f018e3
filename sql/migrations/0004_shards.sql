-- Into how many lanes of one priority a queue's jobs are spread. Claims look at every lane of their queue, hence the limit.
ALTER TABLE awa.queue_controls ADD COLUMN enqueue_shards int2 NOT NULL DEFAULT 1 CHECK (enqueue_shards BETWEEN 1 AND 64);
