-- VIEW consumers
-- One row per queue and session that ever reserved: what it took, and what became of it.
--
-- queue: the queue's name
-- session: the consumer's session; absent: reservations without a session (HTTP)
-- reservations: how many it was given
-- reserved: items it was given
-- completed: items it completed
-- retried: items that failed with it
-- released: items it gave back
-- ended: items it lost by deadline or a lost session
-- dead: items that died with it
-- held: items it still holds
-- mean_processing: mean seconds of the completed items
-- first_seen_at: its first reservation
-- last_seen_at: what it did last
CREATE VIEW querator.consumers AS
SELECT * FROM querator.consumers_compared(NULL)
