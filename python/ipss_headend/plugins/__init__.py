"""What plugins use: the hook marker, the types of answers, and batches of columns. See docs/plugins.md."""

from ipss_headend.plugins.columns import Batch, Columns
from ipss_headend.plugins.context import Context
from ipss_headend.plugins.flags import Flag
from ipss_headend.plugins.specs import Classified, Estimate, IncidentClass, MethodOffer, Refusal, hook

__all__ = [
    "Batch",
    "Classified",
    "Columns",
    "Context",
    "Estimate",
    "Flag",
    "IncidentClass",
    "MethodOffer",
    "Refusal",
    "hook",
]
