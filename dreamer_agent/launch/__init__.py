"""Many runs started and looked after: as processes of this machine, by Slurm, by Ray."""
