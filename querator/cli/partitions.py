"""``querator partitions ...``."""

from typing import Annotated

from cyclopts import App, Parameter

from querator.cli.exits import UsageError
from querator.cli.options import Target
from querator.cli.output import note, print_json

app = App(name="partitions", help="What an operator does with single partitions.")

Number = Annotated[
    int, Parameter(help="Its number, as `querator queues info` and a halted one's fault show it.")
]
Yes = Annotated[bool, Parameter(negative="", help="Yes, go on with what the log has.")]


def check_yes(partition: int, *, is_given: bool) -> None:
    """Raises:
    UsageError: it was not said.
    """
    if not is_given:
        raise UsageError(
            f"what partition {partition} acknowledged and its log does not have stays lost: say --yes"
        )


def tell_loss(partition: int, kept: int, known: int, *, is_json: bool) -> None:
    """What was accepted: ``kept`` is the last record that is there, ``known`` the last that had been; 0: none
    is known."""
    if is_json:
        print_json({"partition": partition, "accepted": True, "kept": kept, "known": known})
        return
    if known > kept + 1:
        lost = f"records {kept + 1} to {known} had been there and are lost"
    elif known > kept:
        lost = f"record {known} had been there and is lost"
    elif known:
        lost = f"record {known}, or what followed it, was another one when it was acknowledged"
    else:
        lost = "how far it had gone before is not known here"
    note(f"partition {partition} goes on behind record {kept}; {lost}")


@app.command(name="accept-loss")
async def accept_loss(partition: Number, /, *, target: Target | None = None, yes: Yes = False) -> None:
    """Go on with a partition that halted because its log may lack what had been acknowledged.

    Look first: is the log of another server, such as a standby's or a backup's, to be had? The acceptance is
    in the partition's log, with its author. Of a server that is not running: `querator log accept-loss`.
    """
    target = target or Target()
    check_yes(partition, is_given=yes)
    async with target.connect("partitions accept-loss") as q:
        loss = await q.call("partitions.accept_loss", {"partition": partition})
    tell_loss(partition, loss["kept"], loss["known"], is_json=target.json)
