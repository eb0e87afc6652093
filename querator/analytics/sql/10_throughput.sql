-- TABLE MACRO throughput(queue_name, width, since, until)
-- Items by what happened to them, per stretch of time.
--
-- queue_name: the queue; NULL: all, one row each
-- width: an interval; default one minute
-- since: from then on; default: the beginning
-- until: before then; default: the end
CREATE MACRO querator.throughput(queue_name, width := INTERVAL 1 MINUTE, since := NULL::TIMESTAMP, until := NULL::TIMESTAMP) AS TABLE
SELECT
    queue,
    time_bucket(width, happened_at) AS bucket,
    coalesce(sum(items) FILTER (event = 'produced'), 0)::BIGINT AS produced,
    coalesce(sum(items) FILTER (event = 'reserved'), 0)::BIGINT AS reserved,
    coalesce(sum(items) FILTER (event = 'completed'), 0)::BIGINT AS completed,
    coalesce(sum(items) FILTER (event = 'retried'), 0)::BIGINT AS retried,
    coalesce(sum(items) FILTER (event = 'released'), 0)::BIGINT AS released,
    coalesce(sum(items) FILTER (event = 'ended'), 0)::BIGINT AS ended,
    coalesce(sum(items) FILTER (event = 'dead'), 0)::BIGINT AS died,
    coalesce(sum(items) FILTER (event = 'redriven'), 0)::BIGINT AS redriven
FROM querator.runs
WHERE first_item IS NOT NULL
    AND (queue_name IS NULL OR queue = queue_name)
    AND (since IS NULL OR happened_at >= since)
    AND (until IS NULL OR happened_at < until)
GROUP BY ALL
ORDER BY queue, bucket
