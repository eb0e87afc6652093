"""The summary on the metrics page."""

from querator.api.http.timing import RECENT_MAX, Timings
from querator.api.metrics import MetricsPage
from tests.api.http.client import open_client


async def page(timings: Timings) -> list[str]:
    metrics = MetricsPage()
    metrics.add(timings.families)
    return (await metrics.response()).body.decode().splitlines()


async def test_calls_are_timed_by_path(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.create("q")
        await client.fails("queue.lease", queue_name="q", batch_size=1, client_id="c", request_timeout="2s")
        lines = await page(client.api.timings)
    path = 'path="/v1/queue.lease"'
    assert f"http_handler_duration_count{{{path}}} 1.0" in lines
    for quantile in ("0.5", "0.99"):
        value = next(
            line.split()[1]
            for line in lines
            if line.startswith(f'http_handler_duration{{{path},quantile="{quantile}"}}')
        )
        assert 2 <= float(value) < 2.1
    assert 'promhttp_metric_handler_requests_total{code="200"} 0.0' in lines


async def test_paths_that_are_none_are_not_counted(autojump_clock: object) -> None:
    async with open_client() as client:
        await client.send("/v1/nope")
        assert not any("nope" in line for line in await page(client.api.timings))


async def test_quantiles_are_of_the_latest() -> None:
    timings = Timings()
    for _ in range(RECENT_MAX):
        timings.add("/p", 1_000_000)
    for _ in range(RECENT_MAX):
        timings.add("/p", 3_000_000)
    lines = await page(timings)
    assert 'http_handler_duration{path="/p",quantile="0.5"} 3.0' in lines
    assert f'http_handler_duration_count{{path="/p"}} {2 * RECENT_MAX}.0' in lines
    assert len(timings._of_path["/p"].recent) == RECENT_MAX
