-- What the role may do to the log beyond reading and adding to it.
select distinct granted.privilege
from pg_class c
cross join unnest(array['UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER']) as granted(privilege)
where (c.oid in ('querator.log'::regclass, 'querator.head'::regclass, 'querator.bucket'::regclass)
        or c.oid in (select inhrelid from pg_inherits where inhparent = 'querator.log'::regclass))
    and has_table_privilege(c.oid, granted.privilege)
order by granted.privilege
