-- MACRO change(state, state_before, state_after, items)
-- Within a GROUP BY over `querator.runs`: by how many items a state grew.
--
-- state: scheduled, ready, reserved or dead
-- state_before: the column of that name
-- state_after: the column of that name
-- items: the column of that name
CREATE MACRO querator.change(state, state_before, state_after, items) AS (
    coalesce(sum(items) FILTER (state_after = state), 0) - coalesce(sum(items) FILTER (state_before = state), 0)
)::BIGINT
