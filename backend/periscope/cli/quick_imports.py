"""What a command does before it loads a model in its own process, so that the imports for it take less time."""

from __future__ import annotations

from periscope.config import Config


def import_quickly(config: Config) -> None:
    """Have transformers read what an earlier start has kept of its own files, instead of the files. Idempotent."""
    from periscope.engine.loading.import_structure import KeptImportStructure
    from periscope.service import StateFolder

    KeptImportStructure(StateFolder(config.places.state).imports).install()
