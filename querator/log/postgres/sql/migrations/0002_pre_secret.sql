-- Secrets that all nodes on this database share, such as the one that signs resume tokens: a client may then
-- resume its session at whichever node has taken over. Who may read this table may read every payload anyway.

create table querator.secret (
    name text primary key,
    value bytea not null,
    made_at timestamptz not null default clock_timestamp()
);
