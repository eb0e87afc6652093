-- VIEW items
-- One row per item: its whole life so far.
--
-- queue: the queue's name
-- partition: the partition, globally
-- item: number of the item in its partition
-- item_kind: its kind
-- item_key: its key
-- producer: the idempotent producer that sent it, if any
-- produced_at: when it entered this partition
-- due_at: for when it was scheduled at first
-- first_reserved_at: when it was reserved for the first time
-- finished_at: when it was gone: completed, moved, cleared, deleted or pruned
-- last_event_at: when something happened to it last
-- state: scheduled, ready, reserved or dead; absent: it is gone
-- outcome: how it went: completed, moved, cleared, deleted, pruned; absent: it is still here
-- attempts: attempts that counted, the running one included (released ones do not count; a redrive starts anew, and both are counted here)
-- reservations: how often it was reserved
-- died: how often it became dead
-- redriven: how often it was brought back
-- waiting: from being ready (or due) for the first time to the first reservation
-- processing: length of the reservation that completed it
CREATE VIEW querator.items AS
SELECT
    any_value(queue) AS queue,
    partition,
    item,
    any_value(item_kind) FILTER (event = 'produced') AS item_kind,
    any_value(item_key) AS item_key,
    any_value(author) FILTER (event = 'produced') AS producer,
    any_value(produced_at) AS produced_at,
    any_value(due_at) FILTER (event = 'produced') AS due_at,
    min(reserved_at) AS first_reserved_at,
    max(happened_at) FILTER (state_after IS NULL) AS finished_at,
    max(happened_at) AS last_event_at,
    nullif(arg_max(coalesce(state_after, ''), position * 4194304 + seq), '') AS state,
    any_value(event) FILTER (state_after IS NULL) AS outcome,
    count(*) FILTER (event = 'reserved') - count(*) FILTER (event = 'released') AS attempts,
    count(*) FILTER (event = 'reserved') AS reservations,
    count(*) FILTER (event = 'dead') AS died,
    count(*) FILTER (event = 'redriven') AS redriven,
    min(reserved_at) - coalesce(any_value(due_at) FILTER (event = 'produced'), any_value(produced_at)) AS waiting,
    max(happened_at - reserved_at) FILTER (event = 'completed') AS processing
FROM querator.events
WHERE item IS NOT NULL
GROUP BY partition, item
