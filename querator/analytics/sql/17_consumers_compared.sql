-- TABLE MACRO consumers_compared(queue_name, since, until)
-- The view `consumers`, for a queue and a stretch of time.
--
-- queue_name: the queue; NULL: all
-- since: from then on; default: the beginning
-- until: before then; default: the end
CREATE MACRO querator.consumers_compared(queue_name, since := NULL::TIMESTAMP, until := NULL::TIMESTAMP) AS TABLE
SELECT
    queue,
    session,
    count(DISTINCT (partition, reservation)) FILTER (event = 'reserved') AS reservations,
    coalesce(sum(items) FILTER (event = 'reserved'), 0)::BIGINT AS reserved,
    coalesce(sum(items) FILTER (event = 'completed'), 0)::BIGINT AS completed,
    coalesce(sum(items) FILTER (event = 'retried'), 0)::BIGINT AS retried,
    coalesce(sum(items) FILTER (event = 'released'), 0)::BIGINT AS released,
    coalesce(sum(items) FILTER (event = 'ended'), 0)::BIGINT AS ended,
    coalesce(sum(items) FILTER (event = 'dead'), 0)::BIGINT AS dead,
    querator.change('reserved', state_before, state_after, items) AS held,
    sum((epoch_us(happened_at) - epoch_us(reserved_at)) * items) FILTER (event = 'completed')
        / sum(items) FILTER (event = 'completed') / 1e6 AS mean_processing,
    min(happened_at) AS first_seen_at,
    max(happened_at) AS last_seen_at
FROM querator.runs
WHERE reservation IS NOT NULL
    AND (queue_name IS NULL OR queue = queue_name)
    AND (since IS NULL OR happened_at >= since)
    AND (until IS NULL OR happened_at < until)
GROUP BY queue, session
ORDER BY completed DESC, queue, session
