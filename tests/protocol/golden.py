"""Where the golden frames are, and how they are written: ``python -m tests.protocol.golden``."""

from pathlib import Path

from querator.protocol.codec import CODECS, Codec
from querator.protocol.messages import ClientMessage, ServerMessage
from tests.protocol.samples import client_samples, server_samples

GOLDEN = Path(__file__).parent.parent / "golden" / "wire"


def tag(message: ClientMessage | ServerMessage) -> str:
    """The message's ``type`` on the wire."""
    name = type(message).__struct_config__.tag
    return str(name)


def golden_path(side: str, message: ClientMessage | ServerMessage, codec: Codec) -> Path:
    """The file of this message's frame."""
    return GOLDEN / f"{side}.{tag(message)}.{'json' if codec.is_text else 'msgpack.hex'}"


def read_frame(path: Path, codec: Codec) -> str | bytes:
    """The frame in a golden file."""
    text = path.read_text().rstrip("\n")
    return text if codec.is_text else bytes.fromhex(text)


def write_missing() -> list[Path]:
    """Write the files that are not there yet; existing ones stay as they are."""
    written = []
    for codec in CODECS.values():
        sides = (("client", client_samples(codec)), ("server", server_samples(codec)))
        for side, samples in sides:
            for message in samples:
                path = golden_path(side, message, codec)
                if path.exists():
                    continue
                frame = codec.encode([message])
                path.write_text((frame if isinstance(frame, str) else frame.hex()) + "\n")
                written.append(path)
    return written


if __name__ == "__main__":
    for path in write_missing():
        print(path.name)
