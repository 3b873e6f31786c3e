"""What a classifier said of photos, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from utils.errors import UserError
from utils.files import as_json
from utils.types import FloatArray


@dataclass
class Answers:
    """The most probable classes of every photo, best first, as (class id, name, probability); what failed and why."""

    found: dict[str, list[tuple[int, str, float]]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, results: Iterable[tuple[str, FloatArray | UserError]], class_names: Sequence[str], top: int) -> Answers:
        """The ``top`` classes of each (path, probabilities [C]); of equal ones that of the lower id comes first."""
        made = cls()
        for path, result in results:
            if isinstance(result, UserError):
                made.failed[path] = str(result)
            else:
                best = np.argsort(-result, kind="stable")[:top].tolist()
                made.found[path] = [(i, class_names[i], float(result[i])) for i in best]
        return made

    def table(self) -> Table:
        """One row a class, photo by photo."""
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
        table.add_column("photo", overflow="fold")
        table.add_column("class", overflow="fold")
        table.add_column("probability", justify="right", no_wrap=True)
        for path, classes in self.found.items():
            for place, (_, name, probability) in enumerate(classes):
                # Text, so that a name such as "[red]" is not taken for markup.
                table.add_row(Text("" if place else path), Text(name), f"{100 * probability:.1f}%")
            table.add_section()
        return table

    def json(self) -> str:
        """One document: ``images`` and ``failed``, both in the order given."""
        images = [
            {
                "image": path,
                "classes": [{"class_id": i, "name": name, "probability": share} for i, name, share in classes],
            }
            for path, classes in self.found.items()
        ]
        failed = [{"image": path, "error": message} for path, message in self.failed.items()]
        return as_json({"images": images, "failed": failed}, indent=2) + "\n"
