"""What the commands that write files share: the flags that say where, and the rule that nothing is lost.

A command writes into a new folder under runs/, or into the one that the user names, where it replaces nothing.
"""

import dataclasses
import os
import pathlib

from mnist_jax.errors import ConfigError
from mnist_jax.fields import flag_field
from mnist_jax.files import check_writable, expand_user, make_new_folder


@dataclasses.dataclass(frozen=True)
class OutputFlags:
    """The flags that say where files are written."""

    output: str = flag_field("", "folder for the files; left out: a new one, runs/COMMAND-TIME", group="output")
    overwrite: bool = flag_field(False, "replace files that --output already holds", group="output")

    def check_output(self, *names: str) -> None:
        """Refuses, before anything is computed, a folder that can't be written or holds one of the files.

        Args:
          *names: of the files that will be written.

        Raises:
          ConfigError: it can't be written, or a file would be lost.
        """
        folder = expand_user(self.output) if self.output else pathlib.Path("runs")
        held = [name for name in names if self.output and os.path.lexists(folder / name)]
        if held and not self.overwrite:
            raise ConfigError(
                f"output={self.output}: already holds {', '.join(held)}; choose another folder, or use overwrite=True"
            )
        try:
            check_writable(folder)
        except OSError as error:
            if not self.output:
                raise ConfigError(
                    f"runs can't be written: {error.strerror}; name a folder with output=FOLDER"
                ) from None
            raise ConfigError(
                f"output={self.output}: can't be written: {error.strerror}; choose another folder"
            ) from None

    def make_output(self, stem: str) -> pathlib.Path:
        """Makes the folder, once there is something to write.

        Args:
          stem: what the name of a new folder begins with.

        Returns:
          The folder.
        """
        if not self.output:
            return make_new_folder(stem)
        folder = expand_user(self.output)
        folder.mkdir(parents=True, exist_ok=True)
        return folder
