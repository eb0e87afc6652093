-- VIEW documentation
-- What there is in this schema.
--
-- kind: view or macro
-- name: how it is called
-- comment: what it is
CREATE VIEW querator.documentation AS
SELECT 'view' AS kind, view_name AS name, comment FROM duckdb_views() WHERE schema_name = 'querator'
UNION ALL
SELECT 'macro', function_name || '(' || array_to_string(parameters, ', ') || ')', comment
FROM duckdb_functions() WHERE schema_name = 'querator'
