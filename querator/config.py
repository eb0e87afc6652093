"""One frozen ``Config``, read once, and for each value where it came from.

Precedence: flag > ``QUERATOR_*`` > ``querator.toml`` (the nearest one above the working directory,
else ``$XDG_CONFIG_HOME/querator/querator.toml``) > default. A setting that nobody gave is *unset*,
which is not the same as given with the default's value: defaults never hide a file. A secret may
be given as ``QUERATOR_X_FILE``, the name of a file that holds it.

Everything wrong is a ``ConfigError`` that names the setting, where it was set, and the remedy.
"""

import difflib
import enum
import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit, urlunsplit

import attrs
import typed_settings as ts
from typed_settings.converters import to_bool
from typed_settings.types import SecretStr

from querator.core import limits
from querator.core.ids import SECOND
from querator.core.stores import WORDS as LOG_WORDS
from querator.core.stores import parse_stores
from querator.errors import ConfigError

FILE_NAME: Final = "querator.toml"
PREFIX: Final = "QUERATOR_"
DEFAULT: Final = "default"
PORT_MAX: Final = 65_535
HELP: Final = "help"
PARSE: Final = "parse"
"""Keys of a setting's metadata: what it is for, and what makes its value from text."""
_UNITS: Final = {"": 1, "KB": 1_000, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


class LogLevel(enum.StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(enum.StrEnum):
    AUTO = "auto"
    """Text on a terminal, JSON otherwise."""
    TEXT = "text"
    JSON = "json"


_SPANS: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_ADDRESS: Final = re.compile(
    r"(?:(?:wss?|https?)://)?(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]/\s]*)):(?P<port>\d{1,5})(?:/\S*)?"
)


def parse_address(text: str) -> tuple[str, int]:
    """(host, port) of ``HOST:PORT``, ``:PORT`` or ``[IPV6]:PORT``; clients may write it as a URL.

    Raises:
        ValueError: it is none; the text says what is wrong.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > PORT_MAX:
        raise ValueError(f"'{text}' is no address; write HOST:PORT, such as localhost:2319")
    return match["six"] or match["host"], int(match["port"])


def _address(text: str) -> str:
    for part in text.split(","):
        parse_address(part)
    return text


def _place(text: str) -> str:
    if text:
        parse_address(text)
    return text


def _size(value: str) -> int:
    """Bytes of ``256MiB``, ``1_000_000`` and the like."""
    match = re.fullmatch(r"(\d[\d_]*)\s*([A-Za-z]*)", value)
    if match is None or match[2].upper() not in _UNITS:
        raise ValueError(f"'{value}' is no size; write bytes, or a number with KiB, MiB or GiB")
    return int(match[1]) * _UNITS[match[2].upper()]


def _span(text: str) -> int:
    """Seconds of ``60``, ``60s``, ``90m``, ``24h`` or ``30d``."""
    match = re.fullmatch(r"(\d+)\s*([smhd]?)", text)
    if match is None:
        raise ValueError(f"'{text}' is no stretch of time; write 60s, 90m, 24h or 30d")
    return int(match[1]) * _SPANS[match[2]]


def _count(text: str) -> int:
    if re.fullmatch(r"\d[\d_]*", text) is None:
        raise ValueError(f"'{text}' is no number")
    return int(text)


def _seconds(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*s?", text)
    if match is None:
        raise ValueError(f"'{text}' is no number of seconds; write 5 or 5s")
    return int(match[1])


def _log(text: str) -> SecretStr:
    try:
        parse_stores(text)
    except ValueError as error:
        raise ValueError(f"'{redact(text)}' is no log: {error}") from error
    return SecretStr(text)


def _origins(text: str) -> str:
    for origin in filter(None, (part.strip() for part in text.split(","))):
        parts = urlsplit(origin)
        if origin != "*" and (parts.scheme not in ("http", "https") or not parts.netloc or parts.path):
            raise ValueError(f"'{origin}' is no web origin; write https://HOST, or * for any")
    return text


def _path(text: str) -> Path:
    if not text:
        raise ValueError("the path is empty")
    return Path(text).expanduser()


def _positive(parse: Callable[[str], int]) -> Callable[[str], int]:
    def checked(text: str) -> int:
        value = parse(text)
        if value <= 0:
            raise ValueError(f"{value} is not greater than 0")
        return value

    return checked


def _choice(kind: type[enum.StrEnum]) -> Callable[[str], enum.StrEnum]:
    def parse(text: str) -> enum.StrEnum:
        try:
            return kind(text.lower())
        except ValueError:
            raise ValueError(f"'{text}' is none of {', '.join(kind)}") from None

    return parse


def _setting(default: Any, help_text: str, parse: Callable[[str], object]) -> Any:
    return ts.option(default=default, metadata={HELP: help_text, PARSE: parse})


@attrs.frozen(kw_only=True)
class Config:
    """Every setting, valid by itself. ``check_together`` says whether a server may start with them."""

    address: str = _setting(
        "localhost:2319",
        "HOST:PORT that the server listens on and that clients call; clients may name several, with commas",
        _address,
    )
    data: Path = _setting(Path("querator-data"), "the server's directory; made when missing", _path)
    log: SecretStr = _setting(
        SecretStr("sqlite"),
        "where the log is kept: sqlite (in the data directory), memory, or a PostgreSQL URL; several as "
        "NAME[:AFFINITY]=URL, with white space between them (in a file: an array)",
        _log,
    )
    advertise: str = _setting(
        "", "HOST:PORT at which clients reach this node, if not at its address; names it among others", _place
    )
    unsafe_durability: bool = _setting(
        False, "use a PostgreSQL that may lose acknowledged items in a crash", to_bool
    )
    unsafe_role: bool = _setting(
        False, "connect to PostgreSQL as a role that could change or remove history", to_bool
    )
    auth: bool = _setting(False, "every request needs an API key", to_bool)
    api_key: SecretStr = _setting(SecretStr(""), "the key that clients present", SecretStr)
    insecure: bool = _setting(False, "listen beyond this machine without API keys", to_bool)
    tls_certificate: Path | None = _setting(None, "PEM file with the server's certificate chain", _path)
    tls_key: Path | None = _setting(None, "PEM file with the server's private key", _path)
    origins: str = _setting(
        "",
        "web origins, by commas, whose pages may open sessions besides the server's own; *: any",
        _origins,
    )
    connections_per_address: int = _setting(
        limits.CONNECTIONS_PER_ADDRESS_MAX,
        "connections of one address; more behind a proxy that all clients come through",
        _positive(_count),
    )
    ca: Path | None = _setting(
        None, "PEM file: whom clients trust to sign the server's certificate, instead of the system's", _path
    )
    payload_memory: int = _setting(
        limits.PAYLOAD_MEMORY_BYTES,
        "bytes of payloads of waiting items kept in memory; more stay in the log",
        _positive(_size),
    )
    record_inputs: bool = _setting(
        False, "records also say who waited and what was asked, for a replay to decide again", to_bool
    )
    ping_interval: int = _setting(
        limits.PING_INTERVAL // SECOND,
        "seconds between two pings of a session; a held reservation outlives a dead client by about as long",
        _positive(_seconds),
    )
    export_interval: int = _setting(
        0,
        "seconds between two exports of the log to DATA/analytics, which questions are asked of; 0: none",
        _span,
    )
    log_retention: int = _setting(
        0,
        "seconds, or as 30d, after which history is dropped from the log, once it is exported; 0: never",
        _span,
    )
    log_level: LogLevel = _setting(
        LogLevel.INFO, "what the server reports: debug, info, warning, error", _choice(LogLevel)
    )
    log_format: LogFormat = _setting(LogFormat.AUTO, "how it reports: auto, text, json", _choice(LogFormat))

    @property
    def host(self) -> str:
        """The host of the address; "" for all of this machine's."""
        return parse_address(self.address)[0]

    @property
    def port(self) -> int:
        return parse_address(self.address)[1]

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """``origins``, one by one."""
        return tuple(part.strip() for part in self.origins.split(",") if part.strip())

    def check_together(self) -> None:
        """Refuse what no server should start with.

        Raises:
            ConfigError: half a TLS, or a door open to the network that nobody asked to be open.
        """
        if "," in self.address:
            raise ConfigError(f"address: {self.address} is several, for a client to try; a server has one")
        if (self.tls_certificate is None) != (self.tls_key is None):
            missing = "tls_key" if self.tls_key is None else "tls_certificate"
            raise ConfigError(f"{missing}: is not set, but TLS needs both a certificate and its key")
        if self.log_retention and not self.export_interval:
            raise ConfigError(
                "log_retention: history is dropped once it is exported, but nothing exports it: "
                "set export_interval as well"
            )
        if not (self.auth or self.insecure or is_loopback(self.host)):
            raise ConfigError(
                f"address: {self.address} can be reached from other machines without API keys; "
                "set auth (and tls_certificate and tls_key), or say --insecure if the network is yours"
            )

    @property
    def sends_keys_in_the_clear(self) -> bool:
        """Whether clients on other machines show their keys without TLS, and nobody said that this is fine.

        It need not be wrong (a proxy may speak TLS in front of it), but an operator should know."""
        is_open = self.insecure or self.tls_certificate is not None
        return self.auth and not is_open and not is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@attrs.frozen
class Value:
    """One setting, for ``config show --origin``."""

    name: str
    text: str
    """As an operator would write it; secrets are hidden."""
    origin: str
    """``--flag``, the variable, ``path/to/querator.toml`` or ``default``."""
    help: str


Option: TypeAlias = "attrs.Attribute[Any]"


@attrs.frozen
class Loaded:
    config: Config
    values: tuple[Value, ...]


@attrs.frozen
class _Given:
    raw: object
    origin: str
    base: Path | None = None
    """What a relative path is relative to, where that is not the working directory."""


def load(
    flags: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    directory: Path | None = None,
) -> Loaded:
    """Read all sources. ``flags`` holds what was given on the command line, by setting; ``None`` is unset.

    Raises:
        ConfigError: see the module.
    """
    options = attrs.fields_dict(Config)
    file = find_file(environ, directory or Path.cwd())
    sources = (
        {} if file is None else _from_file(file, options),
        _from_environment(environ, options),
        {name: _Given(value, flag_name(name)) for name, value in (flags or {}).items() if value is not None},
    )
    given: dict[str, _Given] = {}
    for source in sources:
        given.update(source)
    settings: dict[str, Any] = {name: _convert(options[name], entry) for name, entry in given.items()}
    config = Config(**settings)
    return Loaded(
        config,
        tuple(
            Value(
                name,
                _show(getattr(config, name)),
                given[name].origin if name in given else DEFAULT,
                option.metadata[HELP],
            )
            for name, option in options.items()
        ),
    )


def flag_name(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"


def variable_name(setting: str) -> str:
    return f"{PREFIX}{setting.upper()}"


def find_file(environ: Mapping[str, str], directory: Path) -> Path | None:
    """The ``querator.toml`` that counts, if there is one."""
    for parent in (directory, *directory.parents):
        if (parent / FILE_NAME).is_file():
            return parent / FILE_NAME
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".config")
    path = Path(home) / "querator" / FILE_NAME
    return path if path.is_file() else None


def redact(log: str) -> str:
    """Logs' URLs without their passwords."""
    return " ".join(_redact(part) for part in log.split()) if log.split()[1:] else _redact(log)


def _redact(log: str) -> str:
    name, equals, url = log.partition("=")
    if equals and "/" not in name:
        return f"{name}={_redact(url)}"
    parts = urlsplit(log)
    if parts.password is None and "password=" not in parts.query:
        return log
    credentials, _, host = parts.netloc.rpartition("@")
    user, colon, _ = credentials.partition(":")
    netloc = f"{user}:***@{host}" if colon else parts.netloc
    query = re.sub(r"((?:^|&)(?:ssl)?password=)[^&]*", r"\1***", parts.query)
    return urlunsplit(parts._replace(netloc=netloc, query=query))


def _from_environment(environ: Mapping[str, str], options: Mapping[str, Option]) -> dict[str, _Given]:
    """Variables that are no setting are let be: orchestrators make some up from a service's name."""
    given = {}
    for name, option in options.items():
        variable = variable_name(name)
        file_variable = f"{variable}_FILE"
        if variable in environ:
            given[name] = _Given(environ[variable], variable)
        elif _is_secret(option) and environ.get(file_variable):
            path = Path(environ[file_variable]).expanduser()
            try:
                content = path.read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(
                    f"{name}: the file that {file_variable} names cannot be read: {error}"
                ) from error
            given[name] = _Given(content.rstrip("\r\n"), file_variable)
    return given


def _from_file(path: Path, options: Mapping[str, Option]) -> dict[str, _Given]:
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    given = {}
    for name, value in document.items():
        if name not in options:
            near = difflib.get_close_matches(name, options, n=1)
            remedy = f"did you mean '{near[0]}'?" if near else f"the settings are {', '.join(options)}"
            raise ConfigError(f"{name}: unknown setting in {path}; {remedy}")
        raw = " ".join(map(str, value)) if name == "log" and isinstance(value, list) else value
        if complaint := _complaint(options[name].default, raw):
            raise ConfigError(f"{name}: set in {path} to {raw!r}, but it must be {complaint}")
        given[name] = _Given(raw, str(path), path.parent)
    return given


def _complaint(default: object, raw: object) -> str:
    """What a value of the file's type cannot be: "5" is not 5, and 1 is not true."""
    if isinstance(default, bool):
        return "" if isinstance(raw, bool) else "true or false"
    if isinstance(default, int):
        is_fine = isinstance(raw, int | str) and not isinstance(raw, bool)
        return "" if is_fine else "a number, or a size such as '256MiB'"
    return "" if isinstance(raw, str) else "a string"


def _convert(option: Option, given: _Given) -> object:
    is_bool = isinstance(option.default, bool)
    try:
        value: object = given.raw if isinstance(given.raw, bool) else option.metadata[PARSE](str(given.raw))
    except ValueError as error:
        text = f"'{given.raw}' is neither true nor false" if is_bool else str(error)
        raise ConfigError(f"{option.name}: {text} (set by {given.origin})") from error
    if isinstance(value, Path) and given.base is not None:
        return given.base / value
    return value


def _is_secret(option: Option) -> bool:
    return isinstance(option.default, SecretStr)


def _show(value: object) -> str:
    if isinstance(value, SecretStr):
        is_log = "://" in value or value in LOG_WORDS
        return redact(value) if is_log else "***" if value else ""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
