"""dreamer_agent: latent Dreamer-style model-based reinforcement learning in JAX."""
