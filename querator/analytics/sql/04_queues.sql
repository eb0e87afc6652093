-- VIEW queues
-- One row per queue: its settings, what happened in it in all, and what is in it now.
--
-- queue: its name
-- namespace: its namespace
-- partitions: how many partitions it has
-- created_at: when it was created
-- deleted_at: when it was deleted, if it was
-- settings: what its partitions decide by, as JSON
-- produced: items produced in all
-- completed: items completed in all
-- retried: attempts that failed and were to be tried again
-- ended: reservations of items that ended by deadline or lost session
-- died: items that became dead
-- scheduled: items that wait for their time
-- ready: items that wait in line
-- reserved: items that are held
-- dead: items that are dead
-- first_event_at: when its history begins
-- last_event_at: when something happened last
CREATE VIEW querator.queues AS
SELECT
    coalesce(named.queue, told.queue) AS queue,
    named.namespace,
    coalesce(named.partitions, told.partitions) AS partitions,
    named.created_at,
    named.deleted_at,
    named.settings,
    coalesce(told.produced, 0) AS produced,
    coalesce(told.completed, 0) AS completed,
    coalesce(told.retried, 0) AS retried,
    coalesce(told.ended, 0) AS ended,
    coalesce(told.died, 0) AS died,
    coalesce(told.scheduled, 0) AS scheduled,
    coalesce(told.ready, 0) AS ready,
    coalesce(told.reserved, 0) AS reserved,
    coalesce(told.dead, 0) AS dead,
    told.first_event_at,
    told.last_event_at
FROM (
    SELECT
        queue,
        any_value(namespace) AS namespace,
        count(DISTINCT partition) AS partitions,
        max(created_at) AS created_at,
        arg_max(coalesce(deleted_at, TIMESTAMP 'infinity'), created_at) AS last_deleted,
        CASE WHEN isinf(last_deleted) THEN NULL ELSE last_deleted END AS deleted_at,
        arg_max(settings, created_at) AS settings
    FROM querator.partitions GROUP BY queue
) AS named
FULL JOIN (
    SELECT
        queue,
        count(DISTINCT partition) AS partitions,
        coalesce(sum(items) FILTER (event = 'produced'), 0)::BIGINT AS produced,
        coalesce(sum(items) FILTER (event = 'completed'), 0)::BIGINT AS completed,
        coalesce(sum(items) FILTER (event = 'retried'), 0)::BIGINT AS retried,
        coalesce(sum(items) FILTER (event = 'ended'), 0)::BIGINT AS ended,
        coalesce(sum(items) FILTER (event = 'dead'), 0)::BIGINT AS died,
        querator.change('scheduled', state_before, state_after, items) AS scheduled,
        querator.change('ready', state_before, state_after, items) AS ready,
        querator.change('reserved', state_before, state_after, items) AS reserved,
        querator.change('dead', state_before, state_after, items) AS dead,
        min(happened_at) AS first_event_at,
        max(happened_at) AS last_event_at
    FROM querator.runs GROUP BY queue
) AS told ON told.queue = named.queue
