-- TABLE MACRO retries(queue_name, width, since, until)
-- How attempts ended, and the share that failed (retried, ended or dead) of those that ended.
--
-- queue_name: the queue; NULL: all, one row each
-- width: an interval; default: the whole time as one (bucket is absent)
-- since: from then on; default: the beginning
-- until: before then; default: the end
CREATE MACRO querator.retries(queue_name, width := NULL::INTERVAL, since := NULL::TIMESTAMP, until := NULL::TIMESTAMP) AS TABLE
SELECT
    queue,
    time_bucket(width, happened_at) AS bucket,
    coalesce(sum(items) FILTER (event = 'completed'), 0)::BIGINT AS completed,
    coalesce(sum(items) FILTER (event = 'retried'), 0)::BIGINT AS retried,
    coalesce(sum(items) FILTER (event = 'ended'), 0)::BIGINT AS ended,
    coalesce(sum(items) FILTER (event = 'dead'), 0)::BIGINT AS died,
    coalesce(sum(items) FILTER (event = 'released'), 0)::BIGINT AS released,
    (retried + ended + died) / (completed + retried + ended + died) AS failed_share
FROM querator.runs
WHERE event IN ('completed', 'retried', 'ended', 'dead', 'released') AND reservation IS NOT NULL
    AND (queue_name IS NULL OR queue = queue_name)
    AND (since IS NULL OR happened_at >= since)
    AND (until IS NULL OR happened_at < until)
GROUP BY ALL
ORDER BY queue, bucket
