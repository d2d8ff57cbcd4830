"""JAX-native libraries of environments through the protocol `JaxEnv`, a file for each."""
