-- What a serving role may do: add to the log and read it, keep snapshots, stand in the line of nodes.
grant usage on schema querator to {role};
grant insert, select on querator.log to {role};
grant insert, select on {bucket} to {role};
grant select on querator.bucket, querator.bucket_dropped, querator.head, querator.migration to {role};
grant insert, select, update, delete on querator.snapshot, querator.chunk, querator.node, querator.owner to {role};
grant select, insert on querator.secret to {role};
grant execute on function querator.open_bucket(integer), querator.drop_bucket(integer) to {role};
