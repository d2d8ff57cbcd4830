"""Libraries of environments, a file for each: in JAX through the protocol `JaxEnv`, others as `gymnasium.Env`."""
