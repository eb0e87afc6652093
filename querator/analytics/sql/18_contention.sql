-- TABLE MACRO contention(queue_name, width, since, until)
-- How consumers share a queue: who is active, how large reservations are, how many items are held at
-- once at most, and how much work is done again.
--
-- queue_name: the queue; NULL: all together, as one
-- width: an interval; default one minute
-- since: from then on; default: the beginning
-- until: before then; default: the end
CREATE MACRO querator.contention(queue_name, width := INTERVAL 1 MINUTE, since := NULL::TIMESTAMP, until := NULL::TIMESTAMP) AS TABLE
WITH picked AS (
    SELECT *, time_bucket(width, happened_at) AS bucket
    FROM querator.runs
    WHERE reservation IS NOT NULL AND event <> 'extended'
        AND (queue_name IS NULL OR queue = queue_name)
        AND (until IS NULL OR happened_at < until)
), moments AS (
    SELECT bucket, happened_at, querator.change('reserved', state_before, state_after, items) AS change FROM picked GROUP BY ALL
), held AS (
    SELECT bucket, sum(change) OVER (ORDER BY happened_at) AS in_flight, change FROM moments
)
SELECT
    bucket,
    any_value(peaks.in_flight_peak)::BIGINT AS in_flight_peak,
    count(DISTINCT session) AS consumers,
    count(DISTINCT (partition, reservation)) FILTER (event = 'reserved') AS reservations,
    sum(items) FILTER (event = 'reserved') / nullif(reservations, 0) AS items_per_reservation,
    coalesce(sum(items) FILTER (event = 'reserved' AND attempt > 1), 0)::BIGINT AS reserved_again,
    coalesce(sum(items) FILTER (event = 'ended'), 0)::BIGINT AS lost
FROM picked
JOIN (
    -- What was held when the stretch began counts as well.
    SELECT bucket, max(greatest(in_flight, in_flight - change)) AS in_flight_peak FROM held GROUP BY bucket
) AS peaks USING (bucket)
WHERE since IS NULL OR bucket >= time_bucket(width, since::TIMESTAMP)
GROUP BY bucket
ORDER BY bucket
