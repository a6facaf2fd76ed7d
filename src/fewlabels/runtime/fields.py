"""Marks on the fields of configuration dataclasses."""

from __future__ import annotations

import tyro

Main = tyro.conf.arg(name="")
"""The field that an option of the part's own name sets: `--data X` is `Data.name`."""
