"""The units of a run on the workers of a dask cluster; the client plans, checks and is the only one that writes."""

from .addresses import connect
from .scoring import ClusterScoring, at_work_on

__all__ = ["ClusterScoring", "at_work_on", "connect"]
