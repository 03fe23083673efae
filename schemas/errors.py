"""The errors of the whole house: four kinds, each with a stable code.

A caller that wants to act on an error looks at its kind; a script or a receipt looks at its
`code`; a person reads its text. The kinds are the exit codes of the command line.
"""

from __future__ import annotations


class ComityError(Exception):
    """Something that Comity itself has decided to report.

    code: stable, dotted, lower case, starting with the room's name (`envelope.signature_invalid`).
    text: one sentence for a person. It never holds a prompt, an answer or a secret.
    """

    exit_code = 70

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class Unreadable(ComityError):
    """The input cannot be read as what it should be. Nothing was changed. Exit 2."""

    exit_code = 2


class ConfigurationError(ComityError):
    """A file, key or expectation is missing or wrong; the text says which and what to write. Exit 2."""

    exit_code = 2


class Refused(ComityError):
    """It was checked and does not hold. Exit 1."""

    exit_code = 1


class Undecided(ComityError):
    """It could not be decided: material is missing, stale, or out of reach. Exit 3."""

    exit_code = 3
