-- VIEW reservations
-- One row per attempt: an item, its holder, and how it ended.
--
-- queue: the queue's name
-- partition: the partition, globally
-- item: number of the item in its partition
-- reservation: number of the reservation in its partition; several items may share it
-- item_kind: the item's kind
-- session: session of the holder; absent: a reservation without a session
-- attempt: number of the attempt, from 1
-- ready_at: since when the item had been ready (or due)
-- reserved_at: when it was reserved
-- deadline: until when, extensions included
-- ended_at: when the item left the reservation; absent: it is still held
-- ended_by: completed, retried, released, ended, dead, cleared or deleted
-- reason: why it was released, ended or dead
-- waiting: from ready to reserved
-- processing: from reserved to the end
CREATE VIEW querator.reservations AS
SELECT
    any_value(queue) AS queue,
    partition,
    item,
    reservation,
    any_value(item_kind) AS item_kind,
    any_value(session) AS session,
    any_value(attempt) AS attempt,
    any_value(ready_at) AS ready_at,
    any_value(reserved_at) AS reserved_at,
    max(deadline) AS deadline,
    max(happened_at) FILTER (state_after IS DISTINCT FROM 'reserved') AS ended_at,
    any_value(event) FILTER (state_after IS DISTINCT FROM 'reserved') AS ended_by,
    any_value(reason) FILTER (state_after IS DISTINCT FROM 'reserved') AS reason,
    any_value(reserved_at) - any_value(ready_at) AS waiting,
    ended_at - any_value(reserved_at) AS processing
FROM querator.events
WHERE reservation IS NOT NULL
GROUP BY partition, reservation, item
