-- TABLE MACRO processing(queue_name, width, since, until)
-- How long completed items had been reserved (the attempt that completed them), by when they were completed.
-- Exact quantiles over items, in seconds: the value that so many in a hundred items do not exceed.
--
-- queue_name: the queue; NULL: all, one row each
-- width: an interval; default: the whole time as one (bucket is absent)
-- since: from then on; default: the beginning
-- until: before then; default: the end
CREATE MACRO querator.processing(queue_name, width := NULL::INTERVAL, since := NULL::TIMESTAMP, until := NULL::TIMESTAMP) AS TABLE
WITH measured AS (
    SELECT queue, time_bucket(width, happened_at) AS bucket, epoch_us(happened_at) - epoch_us(reserved_at) AS us,
        sum(items) AS items
    FROM querator.runs
    WHERE event = 'completed'
        AND (queue_name IS NULL OR queue = queue_name)
        AND (since IS NULL OR happened_at >= since)
        AND (until IS NULL OR happened_at < until)
    GROUP BY ALL
), ranked AS (
    SELECT *,
        100 * sum(items) OVER (PARTITION BY queue, bucket ORDER BY us) AS up_to,
        sum(items) OVER (PARTITION BY queue, bucket) AS total
    FROM measured
)
SELECT
    queue,
    bucket,
    sum(items)::BIGINT AS items,
    sum(us * items) / sum(items) / 1e6 AS mean,
    min(us) FILTER (up_to >= 50 * total) / 1e6 AS p50,
    min(us) FILTER (up_to >= 95 * total) / 1e6 AS p95,
    min(us) FILTER (up_to >= 99 * total) / 1e6 AS p99,
    max(us) / 1e6 AS longest
FROM ranked
GROUP BY queue, bucket
ORDER BY queue, bucket
