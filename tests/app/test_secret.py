"""The node's secret, which signs resume tokens."""

from pathlib import Path

import pytest

from querator.app import SECRET_BYTES, read_secret
from querator.env.virtual import virtual_env
from querator.errors import ConfigError

DATA = Path("/data")


async def test_it_is_drawn_once_and_kept() -> None:
    env = virtual_env(1)
    drawn = await read_secret(DATA, env)
    assert len(drawn) == SECRET_BYTES
    assert await read_secret(DATA, env) == drawn


async def test_what_is_too_short_to_be_one_is_refused() -> None:
    """A file that was cut off would let anybody guess resume tokens."""
    env = virtual_env(1)
    await env.files.make_directory(DATA)
    await env.files.write(DATA / "session-secret", bytes(SECRET_BYTES - 1))
    with pytest.raises(ConfigError, match="remove it"):
        await read_secret(DATA, env)
