-- TABLE MACRO failures(queue_name, since, until)
-- Attempts that did not complete, by how they ended and why.
--
-- queue_name: the queue; NULL: all
-- since: from then on; default: the beginning
-- until: before then; default: the end
CREATE MACRO querator.failures(queue_name, since := NULL::TIMESTAMP, until := NULL::TIMESTAMP) AS TABLE
SELECT
    queue,
    event AS ended_by,
    coalesce(reason, '') AS reason,
    sum(items)::BIGINT AS items,
    max(happened_at) AS last_at
FROM querator.runs
WHERE event IN ('retried', 'ended', 'released', 'dead')
    AND reservation IS NOT NULL
    AND (queue_name IS NULL OR queue = queue_name)
    AND (since IS NULL OR happened_at >= since)
    AND (until IS NULL OR happened_at < until)
GROUP BY ALL
ORDER BY items DESC, queue, ended_by, reason
