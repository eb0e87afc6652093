"""Every question about a queue's history, answered by DuckDB, without touching the queue.

``export.Exporter`` follows logs into an *archive*: Parquet files by day and a manifest. ``connect`` opens an
archive as a DuckDB connection with views and macros (docs/analytics.md)::

    import querator.analytics

    connection = querator.analytics.connect("querator-data/analytics")
    connection.sql("FROM waiting('mail', INTERVAL 1 HOUR)").show()
"""

from querator.analytics.connecting import connect

__all__ = ["connect"]
