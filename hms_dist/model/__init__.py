"""timm backbones, weights, normalisation by group, losses, and fast operators."""
