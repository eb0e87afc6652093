"""The embedded log: SQLite files in one directory, for one process.

    querator.lock        held while the store is open, with the holder's process number
    log-000001.db, …     buckets: records, and the tails that stood before the bucket's first record
    snapshots.db         snapshots, their chunks, and which bucket is the oldest

* One connection appends, in a thread of its own, and is the only one that checkpoints: between two
  commits, once the write-ahead log has grown past a bound. A commit touches one file and is on the disk
  (``synchronous=FULL``, read back) before it is answered.
* Readers have a connection of their own in another thread, and read bounded pages, so that no checkpoint
  has to wait for them for long. Snapshots are in a third: none of their writing delays a commit.
* A new bucket is made under another name, complete with the tails that it begins behind, and renamed;
  so the directory's listing is the catalogue of buckets, whenever a crash comes.
* What an error at COMMIT means is not known (a failed fsync may have written everything, and the page
  cache may show what the disk will not have): the connection is thrown away, and before the next append
  the file is opened anew, recovered, and checkpointed, so that what is there is on the disk. The records
  that are sent again then meet themselves, or are written.
"""

from querator.log.sqlite.store import SqliteLog

__all__ = ["SqliteLog"]
