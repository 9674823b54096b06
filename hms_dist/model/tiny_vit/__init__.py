"""TinyViT for large images: timm's TinyViT with faster blocks, the same parameters and results."""
