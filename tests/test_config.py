"""Settings: where they come from, which one wins, and what is said about a wrong one."""

from pathlib import Path

import attrs
import pytest

from querator.config import (
    Config,
    LogLevel,
    find_file,
    is_loopback,
    load,
    parse_address,
    redact,
    variable_name,
)
from querator.core.stores import parse_stores
from querator.errors import ConfigError


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A working directory with nothing above it that counts."""
    inner = tmp_path / "work" / "deep"
    inner.mkdir(parents=True)
    return inner


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def origin(values: object, name: str) -> str:
    found: str = next(value.origin for value in values.values if value.name == name)  # type: ignore[attr-defined]
    return found


def test_nothing_given_is_the_defaults(directory: Path) -> None:
    loaded = load(environ={}, directory=directory)
    assert loaded.config == Config()
    assert {value.origin for value in loaded.values} == {"default"}
    assert loaded.config.host == "localhost"
    assert loaded.config.port == 2319


def test_a_flag_wins_over_the_environment_over_the_file(directory: Path) -> None:
    file = write(directory / "querator.toml", 'address = "file:1"\nlog_level = "debug"\npayload_memory = 5\n')
    environ = {"QUERATOR_ADDRESS": "environment:2", "QUERATOR_LOG_LEVEL": "warning"}
    loaded = load({"address": "flag:3"}, environ=environ, directory=directory)
    assert loaded.config.address == "flag:3"
    assert origin(loaded, "address") == "--address"
    assert loaded.config.log_level is LogLevel.WARNING
    assert origin(loaded, "log_level") == "QUERATOR_LOG_LEVEL"
    assert loaded.config.payload_memory == 5
    assert origin(loaded, "payload_memory") == str(file)


def test_an_unset_flag_does_not_hide_the_file(directory: Path) -> None:
    """The default of a flag must not count as given."""
    write(directory / "querator.toml", "insecure = true\n")
    assert load({"insecure": None, "address": None}, environ={}, directory=directory).config.insecure


def test_the_default_given_explicitly_does_hide_the_file(directory: Path) -> None:
    write(directory / "querator.toml", "insecure = true\n")
    assert not load({"insecure": False}, environ={}, directory=directory).config.insecure


def test_the_nearest_file_upward_counts_then_xdg(directory: Path, tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    assert find_file(environ, directory) is None
    home = write(tmp_path / "xdg" / "querator" / "querator.toml", "")
    assert find_file(environ, directory) == home
    above = write(directory.parent / "querator.toml", "")
    assert find_file(environ, directory) == above
    here = write(directory / "querator.toml", "")
    assert find_file(environ, directory) == here


def test_a_relative_path_in_a_file_is_relative_to_the_file(directory: Path) -> None:
    write(directory.parent / "querator.toml", 'data = "store"\n')
    assert load(environ={}, directory=directory).config.data == directory.parent / "store"
    assert load({"data": "store"}, environ={}, directory=directory).config.data == Path("store")


def test_a_secret_may_come_from_a_file(directory: Path) -> None:
    secret = write(directory / "key", "s3cret\n")
    loaded = load(environ={"QUERATOR_API_KEY_FILE": str(secret)}, directory=directory)
    assert loaded.config.api_key == "s3cret"
    assert origin(loaded, "api_key") == "QUERATOR_API_KEY_FILE"


def test_a_secret_is_never_shown(directory: Path) -> None:
    environ = {
        "QUERATOR_API_KEY": "s3cret",
        "QUERATOR_LOG": "postgresql://user:s3cret@host/base?password=s3cret",
    }
    loaded = load(environ=environ, directory=directory)
    assert "s3cret" not in repr(loaded)
    assert "s3cret" not in " ".join(value.text for value in loaded.values)
    assert str(loaded.config.log) == environ["QUERATOR_LOG"]


def test_a_missing_secret_file_is_named(directory: Path) -> None:
    with pytest.raises(ConfigError, match="api_key: the file that QUERATOR_API_KEY_FILE names"):
        load(environ={"QUERATOR_API_KEY_FILE": str(directory / "nowhere")}, directory=directory)


def test_variables_that_are_no_setting_are_let_be(directory: Path) -> None:
    environ = {"QUERATOR_PORT": "tcp://10.0.0.1:2319", "QUERATOR_SERVICE_HOST": "10.0.0.1"}
    assert load(environ=environ, directory=directory).config == Config()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("adress = 'a:1'", r"adress: unknown setting in .*querator\.toml; did you mean 'address'\?"),
        ("zzz = 1", r"zzz: unknown setting in .*; the settings are address, data"),
        ("payload_memory = true", r"payload_memory: set in .* to True, but it must be a number"),
        ("insecure = 'yes'", r"insecure: set in .* to 'yes', but it must be true or false"),
        ("address = 2319", r"address: set in .* to 2319, but it must be a string"),
        ("address = 'a:1", r"querator\.toml: cannot be read: Expected"),
        (
            "payload_memory = '12 parsecs'",
            r"payload_memory: '12 parsecs' is no size; .* \(set by .*querator\.toml\)",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_a_remedy(directory: Path, text: str, complaint: str) -> None:
    write(directory / "querator.toml", text)
    with pytest.raises(ConfigError, match=complaint):
        load(environ={}, directory=directory)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("address", "localhost", "'localhost' is no address"),
        ("address", "localhost:65536", "is no address"),
        ("auth", "maybe", "'maybe' is neither true nor false"),
        ("log", "mysql://u:hidden@h/d", r"'mysql://u:\*\*\*@h/d' is no log"),
        ("log_level", "loud", "'loud' is none of debug, info, warning, error"),
        ("payload_memory", "0", "0 is not greater than 0"),
        ("data", "", "the path is empty"),
    ],
)
def test_a_wrong_value_is_refused_with_its_origin(
    directory: Path, name: str, text: str, complaint: str
) -> None:
    variable = variable_name(name)
    with pytest.raises(ConfigError, match=rf"^{name}: .*{complaint}.*\(set by {variable}\)"):
        load(environ={variable: text}, directory=directory)


@pytest.mark.parametrize(
    ("text", "size"), [("7", 7), ("1_000", 1_000), ("2KiB", 2_048), ("3 MB", 3_000_000), ("1gib", 1 << 30)]
)
def test_sizes_may_have_units(directory: Path, text: str, size: int) -> None:
    assert load({"payload_memory": text}, environ={}, directory=directory).config.payload_memory == size


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:2319", ("localhost", 2319)),
        (":0", ("", 0)),
        ("[::1]:65535", ("::1", 65_535)),
        ("wss://queue.example:443/v1/stream", ("queue.example", 443)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


def test_connections_of_an_address_are_a_number(directory: Path) -> None:
    given = load({"connections_per_address": "10_000"}, environ={}, directory=directory)
    assert given.config.connections_per_address == 10_000
    for wrong, why in (("0", "not greater than 0"), ("many", "is no number"), ("-1", "is no number")):
        with pytest.raises(ConfigError, match=why):
            load({"connections_per_address": wrong}, environ={}, directory=directory)


def test_keys_in_the_clear_are_warned_of() -> None:
    config = Config(address="0.0.0.0:1", auth=True)
    assert config.sends_keys_in_the_clear
    for fine in (
        {"tls_certificate": Path("c"), "tls_key": Path("k")},
        {"address": "localhost:1"},
        {"insecure": True},
        {"auth": False},
    ):
        assert not attrs.evolve(config, **fine).sends_keys_in_the_clear


def test_web_origins_are_a_list(directory: Path) -> None:
    given = {"origins": "https://a.example, http://localhost:3000"}
    config = load(given, environ={}, directory=directory).config
    assert config.allowed_origins == ("https://a.example", "http://localhost:3000")
    assert load({"origins": "*"}, environ={}, directory=directory).config.allowed_origins == ("*",)
    assert Config().allowed_origins == ()
    for wrong in ("a.example", "https://", "https://a.example/page", "ftp://a.example"):
        with pytest.raises(ConfigError, match="is no web origin"):
            load({"origins": wrong}, environ={}, directory=directory)


@pytest.mark.parametrize("address", ["localhost:1", "127.0.0.1:1", "127.8.8.8:1", "[::1]:1"])
def test_a_door_to_this_machine_may_be_open(address: str) -> None:
    Config(address=address).check_together()


@pytest.mark.parametrize("address", [":1", "0.0.0.0:1", "[::]:1", "192.168.1.2:1", "queue.example:1"])
def test_a_door_to_the_network_is_closed_by_default(address: str) -> None:
    config = Config(address=address)
    with pytest.raises(ConfigError, match=r"address: .* without API keys; .*--insecure"):
        config.check_together()
    certified = attrs.evolve(config, tls_certificate=Path("c"), tls_key=Path("k"))
    with pytest.raises(ConfigError, match=r"without API keys;"):
        certified.check_together()
    attrs.evolve(certified, auth=True).check_together()
    attrs.evolve(config, auth=True).check_together()
    attrs.evolve(config, insecure=True).check_together()


def test_clients_may_be_told_of_several_servers_and_a_server_is_one(directory: Path) -> None:
    settings = load({"address": "a:1,b:2"}, environ={}, directory=directory).config
    assert settings.address == "a:1,b:2"
    with pytest.raises(ConfigError, match="a server has one"):
        settings.check_together()
    with pytest.raises(ConfigError, match="'' is no address"):
        load({"address": "a:1,"}, environ={}, directory=directory)
    with pytest.raises(ConfigError, match="'a:1,b:2' is no address"):
        load({"advertise": "a:1,b:2"}, environ={}, directory=directory)


def test_several_stores_are_an_array_in_a_file_and_words_elsewhere(directory: Path) -> None:
    write(
        directory / "querator.toml",
        'log = ["main=postgresql://u:hidden@a/q", "old:0=postgresql://u:hidden@b/q"]',
    )
    loaded = load(environ={}, directory=directory)
    text = "main=postgresql://u:hidden@a/q old:0=postgresql://u:hidden@b/q"
    assert str(loaded.config.log) == text
    assert str(load(environ={"QUERATOR_LOG": text}, directory=directory).config.log) == text
    shown = {value.name: value.text for value in loaded.values}["log"]
    assert shown == "main=postgresql://u:***@a/q old:0=postgresql://u:***@b/q"


def test_stores_may_be_in_a_file_of_secrets(directory: Path) -> None:
    write(directory / "stores", "main=postgresql://u:hidden@a/q\nold:0=postgresql://u:hidden@b/q\n")
    environ = {"QUERATOR_LOG_FILE": str(directory / "stores")}
    loaded = load(environ=environ, directory=directory)
    assert [setting.name for setting in parse_stores(str(loaded.config.log))] == ["main", "old"]
    assert "hidden" not in repr(loaded)


def test_half_a_tls_is_refused() -> None:
    with pytest.raises(ConfigError, match="tls_key: is not set"):
        Config(tls_certificate=Path("c")).check_together()
    with pytest.raises(ConfigError, match="tls_certificate: is not set"):
        Config(tls_key=Path("k")).check_together()


def test_redact_leaves_what_is_no_secret() -> None:
    assert redact("postgresql://u@h/d?sslmode=verify-full") == "postgresql://u@h/d?sslmode=verify-full"
    assert redact("postgresql://u:p@h:5/d") == "postgresql://u:***@h:5/d"
    assert redact("postgresql://h/d?user=u&password=p&sslpassword=q") == (
        "postgresql://h/d?user=u&password=***&sslpassword=***"
    )


def test_a_host_name_is_not_taken_for_loopback() -> None:
    assert not is_loopback("localhost.example")
    assert not is_loopback("")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("60", 60), ("60s", 60), ("90m", 5_400), ("24h", 86_400), ("30d", 2_592_000)],
)
def test_stretches_of_time_have_units(directory: Path, text: str, seconds: int) -> None:
    loaded = load({"export_interval": text}, environ={}, directory=directory)
    assert loaded.config.export_interval == seconds
    with pytest.raises(ConfigError, match="no stretch of time"):
        load({"export_interval": f"{text}x"}, environ={}, directory=directory)


def test_history_is_not_dropped_where_nothing_exports_it(directory: Path) -> None:
    retention = {"log_retention": "30d"}
    with pytest.raises(ConfigError, match="set export_interval as well"):
        load(retention, environ={}, directory=directory).config.check_together()
    load({**retention, "export_interval": "60"}, environ={}, directory=directory).config.check_together()
