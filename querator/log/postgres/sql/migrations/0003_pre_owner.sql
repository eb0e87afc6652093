-- The first in line, as a row that only one node can have: a renewal whose commit takes long is seen by nobody
-- meanwhile, so by the line alone two nodes may each be the first.

create table querator.owner (
    is_owner boolean primary key default true check (is_owner),
    name text not null,
    nonce bigint not null,
    address text not null,
    lease_until timestamptz not null
) with (fillfactor = 50);
comment on table querator.owner is
    'Who may claim, in database time. A node takes it when the one before left or is gone; the log alone says who owns.';
