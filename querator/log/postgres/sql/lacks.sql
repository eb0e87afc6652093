-- What the role may not do although it must.
select needed.what from (
    values
        ('INSERT on querator.log', has_table_privilege('querator.log', 'INSERT')),
        ('SELECT on querator.log', has_table_privilege('querator.log', 'SELECT')),
        ('SELECT on querator.head', has_table_privilege('querator.head', 'SELECT')),
        ('SELECT on querator.bucket', has_table_privilege('querator.bucket', 'SELECT')),
        ('SELECT on querator.bucket_dropped', has_table_privilege('querator.bucket_dropped', 'SELECT')),
        ('INSERT on querator.snapshot', has_table_privilege('querator.snapshot', 'INSERT')),
        ('DELETE on querator.snapshot', has_table_privilege('querator.snapshot', 'DELETE')),
        ('INSERT on querator.chunk', has_table_privilege('querator.chunk', 'INSERT')),
        ('DELETE on querator.chunk', has_table_privilege('querator.chunk', 'DELETE')),
        ('INSERT on querator.secret', has_table_privilege('querator.secret', 'INSERT')),
        ('UPDATE on querator.node', has_table_privilege('querator.node', 'UPDATE')),
        ('UPDATE on querator.owner', has_table_privilege('querator.owner', 'UPDATE')),
        ('EXECUTE on querator.open_bucket', has_function_privilege('querator.open_bucket(integer)', 'execute')),
        ('EXECUTE on querator.drop_bucket', has_function_privilege('querator.drop_bucket(integer)', 'execute'))
) as needed(what, given)
where not given
order by needed.what
