"""What a metric that stands in for a toolbox's must have, beside what it computes."""

from __future__ import annotations

from collections.abc import Mapping

from mmengine.config import Config

from .page import Section


class Collector:
    """A metric that keeps what a page shows."""

    @classmethod
    def read_settings(cls, cfg: Config) -> dict:
        """Arguments that it has beside those of the toolbox's metric, of a config's model."""
        return {}

    def get_figures(self, metrics: Mapping[str, float]) -> dict[str, object]:
        """The few that matter most, given all metrics of the evaluation."""
        raise NotImplementedError

    def get_sections(self, cfg: Config) -> list[Section]:
        """What the page shows, from the top."""
        raise NotImplementedError
