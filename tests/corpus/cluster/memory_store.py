"""Leases in memory, for workers in one process."""


class MemoryStore:
    """The operations that leases need."""

    def __init__(self) -> None:
        self.files: dict[str, int] = {}

    def create(self, name: str, data: bytes) -> bool:
        if name in self.files:
            return False
        self.files[name] = len(data)
        return True

    def grow(self, name: str, size: int) -> bool:
        if name not in self.files:
            return False
        self.files[name] = size
        return True

    def sizes(self, folder: str) -> dict[str, int]:
        return {name.removeprefix(f"{folder}/"): size for name, size in self.files.items()}

    def delete(self, *names: str) -> None:
        for name in names:
            self.files.pop(name, None)
