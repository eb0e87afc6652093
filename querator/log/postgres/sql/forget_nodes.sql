-- Removes nodes that have been gone for a day.
delete from querator.node where lease_until < clock_timestamp() - interval '1 day'
