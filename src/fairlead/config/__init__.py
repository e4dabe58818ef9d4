"""What a deployment may set, and how that is read: from `fairlead.yaml`, the environment and flags.

Layer L0; imports msgspec only, and pyyaml while a file is read.
"""

from fairlead.config.reading import CONFIG_VARIABLE, read
from fairlead.config.settings import (
    CacheSettings,
    CanarySettings,
    DashboardSettings,
    Isolation,
    JobsSettings,
    ModelSettings,
    Settings,
    ShadowSettings,
    Share,
    Sticky,
    StreamSettings,
    WebSettings,
    is_address,
    is_class,
)

__all__ = [
    "CONFIG_VARIABLE",
    "CacheSettings",
    "CanarySettings",
    "DashboardSettings",
    "Isolation",
    "JobsSettings",
    "ModelSettings",
    "Settings",
    "ShadowSettings",
    "Share",
    "Sticky",
    "StreamSettings",
    "WebSettings",
    "is_address",
    "is_class",
    "read",
]
