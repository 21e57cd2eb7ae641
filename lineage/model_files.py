"""What a model directory may hold: files that are only data, whoever wrote or sent them."""

from pathlib import Path

from lineage.errors import BadInput

# How a file of each allowed kind begins, and where; none of them runs code when it is loaded.
# ONNX has no signature: its first field is ir_version, whose protobuf tag is 0x08.
# A safetensors header follows its own length (8 bytes).
KINDS: dict[str, tuple[int, tuple[bytes, ...]]] = {
    ".json": (0, (b"{", b"[")),
    ".onnx": (0, (b"\x08",)),
    ".parquet": (0, (b"PAR1",)),
    ".safetensors": (8, (b"{",)),
}


def refuse_executable(model: Path) -> None:
    """Let through only kinds of files that hold data, by name and by first bytes.

    An allow-list, because scanners that look for pickles miss many (OWASP ML06).

    Args:
        model: A model directory; every file at any depth counts.

    Raises:
        BadInput: A file is of another kind, does not begin as its name says, or is a link.
    """
    for path in sorted(model.rglob("*")):
        name = path.relative_to(model).as_posix()
        if path.is_symlink():
            raise BadInput(f"model file {name} is a link; a model directory holds its own files")
        if path.is_dir():
            continue
        if not path.is_file():
            raise BadInput(f"model file {name} is no regular file: export the model again")
        if path.suffix not in KINDS:
            raise BadInput(
                f"model directory holds {name}; only {', '.join(KINDS)} are allowed, "
                "never pickles or archives: remove it or export the model again"
            )
        offset, allowed = KINDS[path.suffix]
        with path.open("rb") as file:
            beginning = file.read(offset + 4)[offset:]
        if not beginning.startswith(allowed):
            raise BadInput(
                f"model file {name} does not begin as a {path.suffix} file does and might be a "
                "pickle, which runs code when loaded: export the model again"
            )
