-- TABLE MACRO kinds(queue_name, since, until)
-- The kinds of items compared, the slowest first. Seconds are those of completed items.
--
-- queue_name: the queue; NULL: all
-- since: from then on; default: the beginning
-- until: before then; default: the end
CREATE MACRO querator.kinds(queue_name, since := NULL::TIMESTAMP, until := NULL::TIMESTAMP) AS TABLE
WITH measured AS (
    SELECT
        coalesce(item_kind, '') AS kind,
        event,
        CASE WHEN event = 'completed' THEN epoch_us(happened_at) - epoch_us(reserved_at) END AS us,
        sum(items) AS items
    FROM querator.runs
    WHERE event IN ('completed', 'retried', 'ended', 'dead') AND reservation IS NOT NULL
        AND (queue_name IS NULL OR queue = queue_name)
        AND (since IS NULL OR happened_at >= since)
        AND (until IS NULL OR happened_at < until)
    GROUP BY ALL
), ranked AS (
    SELECT *,
        100 * sum(items) FILTER (us IS NOT NULL) OVER (PARTITION BY kind ORDER BY us NULLS FIRST) AS up_to,
        sum(items) FILTER (us IS NOT NULL) OVER (PARTITION BY kind) AS total
    FROM measured
)
SELECT
    kind,
    coalesce(sum(items) FILTER (event = 'completed'), 0)::BIGINT AS completed,
    coalesce(sum(items) FILTER (event <> 'completed'), 0)::BIGINT AS failed,
    sum(us * items) / sum(items) FILTER (us IS NOT NULL) / 1e6 AS mean,
    min(us) FILTER (up_to >= 50 * total) / 1e6 AS p50,
    min(us) FILTER (up_to >= 95 * total) / 1e6 AS p95,
    max(us) / 1e6 AS longest
FROM ranked
GROUP BY kind
ORDER BY p95 DESC NULLS LAST, kind
