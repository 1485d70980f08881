"""``Tokenizer.push_to_hub``."""

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from spintok.hub.huggingface import upload_folder
from spintok.hub.model_card import model_card
from spintok.serialization import StoredDtype

__all__ = ["Publishing"]


class Publishing:
    """The part of ``Tokenizer`` that publishes it."""

    name: str

    def save(self, folder: str | os.PathLike[str], *, dtype: StoredDtype = "float32") -> None:
        raise NotImplementedError

    def summary(self) -> Mapping[str, str]:
        raise NotImplementedError

    def push_to_hub(
        self,
        repository: str,
        *,
        licence: str | None = None,
        description: str | None = None,
        card: str | None = None,
        dtype: StoredDtype = "float32",
        private: bool = False,
        revision: str | None = None,
        message: str = "Upload tokenizer",
    ) -> str:
        """Publish the tokenizer as a repository of the Hugging Face Hub; whoever may read it loads it by its name.

        Args:
            repository: ORG/NAME; it is made if there is none. ``hf auth login`` or HF_TOKEN says who you are.
            licence: the licence of the weights, as the Hub spells it: "mit", "cc-by-4.0", ...; needed without a
                ``card``.
            description: one line for the model card.
            card: the text of the model card; by default one with the metadata that the Hub reads.
            dtype: as in ``save``.
            private: whether a new repository is private.
            revision: an existing branch to commit to; main by default.
            message: the commit message.

        Returns:
            The address of the commit.

        Raises:
            DownloadError: the Hub cannot be reached, or refuses; the message says why.
            ValueError: no licence, or an impossible name.
        """
        if card is None and licence is None:
            raise ValueError("whoever uses the weights must know their licence: give licence=, or a whole card=")
        with TemporaryDirectory(prefix="spintok-") as scratch:
            folder = Path(scratch)
            self.save(folder, dtype=dtype)
            if card is None:
                line = description or f"Speech tokenizer {self.name}"
                card = model_card(repository, self.summary(), licence or "", line)
            (folder / "README.md").write_text(card, encoding="utf-8")
            return upload_folder(folder, repository, private=private, message=message, revision=revision)
