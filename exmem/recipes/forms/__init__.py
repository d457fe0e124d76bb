"""What may be stored of an image, or of what a backbone made of it."""

from exmem.recipes.forms.contract import Form
from exmem.recipes.forms.features import Features
from exmem.recipes.forms.hidden import HiddenTokens
from exmem.recipes.forms.none import NoImage
from exmem.recipes.forms.patches import Patches
from exmem.recipes.forms.rate import Rate
from exmem.recipes.forms.scaled import Scaled
from exmem.recipes.forms.scales import Scales
from exmem.recipes.forms.smoothed import Smoothed
from exmem.registry import Registry

__all__ = ["FORMS", "Features", "Form", "HiddenTokens", "NoImage", "Patches", "Rate", "Scaled", "Scales", "Smoothed"]

FORMS: Registry[Form] = Registry(
    "image form",
    {
        "features": Features,
        "hidden": HiddenTokens,
        "none": NoImage,
        "patches": Patches,
        "rate": Rate,
        "scaled": Scaled,
        "scales": Scales,
        "smoothed": Smoothed,
    },
)
"""Image forms by name: what is stored of an image."""
