"""trm_jax: encoder-based Tiny Recursive Models for ARC-AGI, trained with the original or the online dynamics."""
