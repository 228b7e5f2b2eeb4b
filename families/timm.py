"""Networks of timm, which are no family: there is something to see of them, too."""

from .views import Watch, output_features

WATCHES = (Watch('features', 'mmdense.Timm', r'^$', output_features),)
