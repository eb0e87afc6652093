-- The log, its buckets, snapshots and the nodes that may own it.
--
-- The fence is the unique key (partition, position) of a bucket's table. It spans buckets because at any
-- moment exactly one bucket accepts records: opening the next one waits for every insert under way, writes
-- down each partition's last record (querator.head), and seals the old table by a check that nothing meets.
-- So whoever contends for a position either meets the others in one index or is refused by the seal.

create schema querator;

create table querator.migration (
    number integer primary key,
    name text not null,
    checksum bytea not null,
    applied_at timestamptz not null default clock_timestamp()
);

create table querator.bucket (
    number integer primary key check (number > 0),
    opened_at timestamptz not null default clock_timestamp()
);
comment on table querator.bucket is 'The highest number is the open bucket; all lower ones are sealed.';

create table querator.bucket_dropped (
    number integer primary key references querator.bucket,
    dropped_at timestamptz not null default clock_timestamp()
);

create table querator.log (
    partition bigint not null check (partition >= 0),
    position bigint not null check (position > 0),
    nonce bigint not null,
    written_at bigint not null,
    item_min bigint not null,
    item_max bigint not null,
    bucket integer not null,
    version integer not null,
    previous_hash bytea not null,
    hash bytea not null,
    payload_checksum bytea not null,
    inputs bytea not null,
    events bytea not null,
    payload bytea not null
) partition by list (bucket);
-- pglz costs more processor time than the write it saves (and halves the append rate).
alter table querator.log
    alter column inputs set storage external,
    alter column events set storage external,
    alter column payload set storage external;
comment on column querator.log.written_at is 'Microseconds since 1970-01-01 UTC.';

create table querator.head (
    partition bigint not null,
    bucket integer not null references querator.bucket,
    first_position bigint not null,
    position bigint not null,
    nonce bigint not null,
    hash bytea not null,
    primary key (partition, bucket)
);
comment on table querator.head is
    'First and last position of each partition in each sealed bucket; stays when the bucket is dropped.';

create table querator.chunk (
    partition bigint not null,
    segment bigint not null,
    position bigint not null,
    checksum bytea not null,
    body bytea not null,
    primary key (partition, segment, position)
);
alter table querator.chunk alter column body set storage external;

create table querator.snapshot (
    partition bigint not null,
    position bigint not null,
    version integer not null,
    hash bytea not null,
    checksum bytea not null,
    seal bytea not null,
    chunk_segments bigint[] not null,
    chunk_positions bigint[] not null,
    head bytea not null,
    primary key (partition, position)
);
alter table querator.snapshot alter column head set storage external;
comment on column querator.snapshot.seal is 'Over all other columns: a row that does not match is left out.';

create table querator.node (
    name text primary key,
    nonce bigint not null,
    address text not null,
    joined_at timestamptz not null,
    lease_until timestamptz not null
) with (fillfactor = 50);
comment on table querator.node is
    'Who is alive, in database time. Says who may try to claim; the log alone says who owns.';

create function querator.create_bucket(number integer) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    name text := 'log_' || number;
    grantee oid;
begin
    execute format('create table querator.%I (like querator.log including storage including constraints)', name);
    execute format('alter table querator.%I alter column bucket set default %s', name, number);
    execute format('alter table querator.%I add primary key (partition, position)', name);
    execute format('alter table querator.log attach partition querator.%I for values in (%s)', name, number);
    for grantee in
        select a.grantee from pg_class c, aclexplode(c.relacl) a
        where c.oid = 'querator.log'::regclass and a.privilege_type = 'INSERT' and a.grantee not in (0, c.relowner)
    loop
        execute format('grant insert, select on querator.%I to %s', name, grantee::regrole);
    end loop;
    insert into querator.bucket (number) values (create_bucket.number);
end
$$;
revoke all on function querator.create_bucket(integer) from public;

create function querator.open_bucket(expected integer) returns integer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
-- Appends queue behind this wait; the caller tries again later.
set lock_timeout = '250ms'
as $$
-- Seals bucket `expected` and opens the next one. Does nothing when it is no longer the open one. Returns the
-- number of the open bucket.
declare
    current integer;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'open_bucket must see what was committed while it waited for its locks'
            using hint = 'Call it in a READ COMMITTED transaction.';
    end if;
    lock table querator.bucket in share row exclusive mode;
    select max(b.number) into current from querator.bucket b;
    if current <> expected then
        return current;
    end if;
    -- Waits for every insert under way; from here on the tails in this bucket are final.
    execute format('lock table querator.%I in access exclusive mode', 'log_' || current);
    execute format(
        'insert into querator.head (partition, bucket, first_position, position, nonce, hash)
         with recursive present as (
             (select partition, position from querator.%1$I order by partition, position limit 1)
             union all
             select next.partition, next.position from present, lateral (
                 select l.partition, l.position from querator.%1$I l where l.partition > present.partition
                 order by l.partition, l.position limit 1) next
         )
         select present.partition, %2$s, present.position, last.position, last.nonce, last.hash
         from present, lateral (
             select l.position, l.nonce, l.hash from querator.%1$I l where l.partition = present.partition
             order by l.position desc limit 1) last',
        'log_' || current, current);
    execute format('alter table querator.%I add constraint sealed check (false) not valid', 'log_' || current);
    perform querator.create_bucket(current + 1);
    return current + 1;
end
$$;
revoke all on function querator.open_bucket(integer) from public;

create function querator.drop_bucket(number integer) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '2s'
as $$
-- Drops the oldest bucket, whole. The caller has made sure that nothing live is in it.
declare
    oldest integer;
    current integer;
begin
    lock table querator.bucket in share row exclusive mode;
    if exists (select from querator.bucket_dropped d where d.number = drop_bucket.number) then
        return;
    end if;
    select min(b.number), max(b.number) into oldest, current from querator.bucket b
    where not exists (select from querator.bucket_dropped d where d.number = b.number);
    if drop_bucket.number is distinct from oldest or drop_bucket.number = current then
        raise exception 'bucket % cannot be dropped; % is the oldest and % is open', drop_bucket.number, oldest, current
            using errcode = 'object_not_in_prerequisite_state';
    end if;
    execute format('alter table querator.log detach partition querator.%I', 'log_' || number);
    execute format('drop table querator.%I', 'log_' || number);
    insert into querator.bucket_dropped (number) values (drop_bucket.number);
end
$$;
revoke all on function querator.drop_bucket(integer) from public;

select querator.create_bucket(1);
