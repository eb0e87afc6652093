-- TABLE MACRO backlog(queue_name, width, since, until)
-- How many items were in each state at the end of each stretch of time, without gaps.
--
-- queue_name: the queue; NULL: all together, as one
-- width: an interval; default one minute
-- since: the first stretch; default: where the history begins
-- until: before then; default: where the history ends
CREATE MACRO querator.backlog(queue_name, width := INTERVAL 1 MINUTE, since := NULL::TIMESTAMP, until := NULL::TIMESTAMP) AS TABLE
WITH picked AS (
    SELECT * FROM querator.runs
    WHERE first_item IS NOT NULL
        AND (queue_name IS NULL OR queue = queue_name)
        AND (until IS NULL OR happened_at < until)
), ends AS (
    SELECT
        time_bucket(width, coalesce(since::TIMESTAMP, min(happened_at))) AS first,
        time_bucket(width, coalesce(until::TIMESTAMP - INTERVAL 1 MICROSECOND, max(happened_at))) AS last
    FROM picked
), changed AS (
    SELECT
        greatest(time_bucket(width, happened_at), (SELECT first FROM ends)) AS bucket,
        querator.change('scheduled', state_before, state_after, items) AS scheduled,
        querator.change('ready', state_before, state_after, items) AS ready,
        querator.change('reserved', state_before, state_after, items) AS reserved,
        querator.change('dead', state_before, state_after, items) AS dead
    FROM picked GROUP BY ALL
), grid AS (
    -- A list is made at once: it must not be as long as somebody's slip of the pen.
    SELECT unnest(CASE
        WHEN epoch(last - first) / epoch(width) < 1000000 THEN range(first, last + width, width)
        WHEN first IS NOT NULL THEN error('more than a million stretches: choose a greater width')
    END) AS bucket
    FROM ends
)
SELECT
    bucket,
    (sum(coalesce(scheduled, 0)) OVER past)::BIGINT AS scheduled,
    (sum(coalesce(ready, 0)) OVER past)::BIGINT AS ready,
    (sum(coalesce(reserved, 0)) OVER past)::BIGINT AS reserved,
    (sum(coalesce(dead, 0)) OVER past)::BIGINT AS dead
FROM grid LEFT JOIN changed USING (bucket)
WINDOW past AS (ORDER BY bucket)
ORDER BY bucket
