-- TABLE MACRO item_history(in_partition, of_item)
-- Everything that happened to one item, oldest first.
--
-- in_partition: the partition
-- of_item: number of the item in it
CREATE MACRO querator.item_history(in_partition, of_item) AS TABLE
SELECT
    position, seq, happened_at, event, state_before, state_after, reservation, session, attempt,
    deadline, due_at, reason, item_kind, item_key, author, peer
FROM querator.runs
WHERE partition = in_partition AND first_item <= of_item AND first_item + items > of_item
ORDER BY position, seq
