"""What plugins use: the hook marker, the types of answers, and batches of columns. See docs/plugins.md."""

from ipss_headend.plugins.columns import Batch, Columns
from ipss_headend.plugins.context import Context
from ipss_headend.plugins.flags import Flag
from ipss_headend.plugins.silence import ANSWERED, GOING, SHARE, SILENT, TOGETHER_US, Silence, silences, together
from ipss_headend.plugins.specs import Classified, Estimate, IncidentClass, MethodOffer, Refusal, hook

__all__ = [
    "ANSWERED",
    "GOING",
    "SHARE",
    "SILENT",
    "TOGETHER_US",
    "Batch",
    "Classified",
    "Columns",
    "Context",
    "Estimate",
    "Flag",
    "IncidentClass",
    "MethodOffer",
    "Refusal",
    "Silence",
    "hook",
    "silences",
    "together",
]
