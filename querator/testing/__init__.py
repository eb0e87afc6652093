"""An in-process broker for your tests: the server's own code, under a virtual clock, without a socket.

    async def test_a_mail_is_retried(querator_broker):
        await querator_broker.create_queue("mail")
        async with querator_broker.connect() as q:
            ...
            await querator_broker.advance("1h")

``docs/REPLAY.md`` has more. The broker is in ``querator.testing.in_process``, the pytest fixtures are in
``querator.testing.plugin``; what is here is loaded when it is asked for, because pytest loads plugins in
every run.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from querator.testing.in_process import Broker, broker, run

__all__ = ["Broker", "broker", "run"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from querator.testing import in_process  # noqa: PLC0415

        return getattr(in_process, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
