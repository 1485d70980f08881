"""What a training run leaves in its folder."""

from pathlib import Path

__all__ = ["contents"]


def contents(output: Path) -> dict[str, bytes]:
    """All files by name, without the column of speeds in the log."""
    found = {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}
    if log := found.get("training/log.csv"):
        lines = log.decode().splitlines()
        assert lines[0].endswith(",real_time")
        found["training/log.csv"] = "\n".join(line.rpartition(",")[0] for line in lines).encode()
    # The checkpoint before the last may be of another step if the run was stopped in between.
    found.pop("training/checkpoint-previous.safetensors", None)
    return found
