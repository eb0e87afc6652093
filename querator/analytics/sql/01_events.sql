-- VIEW events
-- One row per item and event, in full: what happened to every item, and (item absent) to the partition.
-- Times are UTC. `(partition, position, seq, item)` is unique.
--
-- queue: the queue's name
-- partition: the partition, globally
-- position: the record in the partition's log
-- seq: order within the record
-- happened_at: when it happened
-- event: produced, reserved, completed, retried, released, ended (by deadline or lost session), dead, due, extended, redriven, received, moved, sent_back (home, from a dead queue), came_back, stayed (their home was deleted), cleared, deleted, pruned; of the partition: claimed, policy_applied, paused, resumed, clock_stepped, loss_accepted
-- item: number of the item in its partition; absent where the event is about no item
-- state_before: scheduled, ready, reserved or dead; absent: there was no item
-- state_after: scheduled, ready, reserved or dead; absent: the item is gone
-- reservation: number of the reservation in its partition
-- session: session of the holder; absent: a reservation without a session
-- attempt: number of the attempt, from 1
-- produced_at: when the item entered this partition
-- ready_at: since when it had been ready (or due) when it was reserved
-- first_reserved_at: when it was reserved for the first time
-- reserved_at: when the reservation in question began
-- deadline: deadline of the reservation (of reserved and extended)
-- due_at: for when the item was scheduled (of produced and retried)
-- reason: why it was released, ended or dead; what changed, of policy_applied, clock_stepped and loss_accepted
-- item_kind: the item's kind
-- item_key: the item's key (of produced)
-- author: who: producer, operator or node
-- peer: the other partition (of moved, received, sent_back, came_back and stayed)
CREATE VIEW querator.events AS
SELECT
    queue, partition, position, seq, happened_at, event,
    unnest(CASE WHEN first_item IS NULL THEN [NULL::BIGINT] ELSE range(first_item, first_item + items) END) AS item,
    state_before, state_after, reservation, session, attempt, produced_at, ready_at, first_reserved_at,
    reserved_at, deadline, due_at, reason, item_kind, item_key, author, peer
FROM querator.runs
