-- TABLE MACRO slo(queue_name, waiting_target, processing_target, width, since, until)
-- How many items kept to a promise: reserved within `waiting_target` of being ready (or due), and
-- completed within `processing_target` of being reserved.
--
-- queue_name: the queue; NULL: all, one row each
-- waiting_target: an interval; default one minute
-- processing_target: an interval; default one minute
-- width: an interval; default: the whole time as one (bucket is absent)
-- since: from then on; default: the beginning
-- until: before then; default: the end
CREATE MACRO querator.slo(
    queue_name, waiting_target := INTERVAL 1 MINUTE, processing_target := INTERVAL 1 MINUTE,
    width := NULL::INTERVAL, since := NULL::TIMESTAMP, until := NULL::TIMESTAMP
) AS TABLE
SELECT
    queue,
    time_bucket(width, happened_at) AS bucket,
    coalesce(sum(items) FILTER (event = 'reserved'), 0)::BIGINT AS reserved,
    coalesce(sum(items) FILTER (event = 'reserved' AND happened_at <= ready_at + waiting_target), 0)::BIGINT
        AS reserved_in_time,
    coalesce(sum(items) FILTER (event = 'completed'), 0)::BIGINT AS completed,
    coalesce(sum(items) FILTER (event = 'completed' AND happened_at <= reserved_at + processing_target), 0)::BIGINT
        AS completed_in_time,
    reserved_in_time / nullif(reserved, 0) AS waiting_kept,
    completed_in_time / nullif(completed, 0) AS processing_kept
FROM querator.runs
WHERE event IN ('reserved', 'completed')
    AND (queue_name IS NULL OR queue = queue_name)
    AND (since IS NULL OR happened_at >= since)
    AND (until IS NULL OR happened_at < until)
GROUP BY ALL
ORDER BY queue, bucket
