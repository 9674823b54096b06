"""Models: timm backbones, weights, normalisation by group, losses."""
